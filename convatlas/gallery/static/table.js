"use strict";

/* Tables that sort, filter and export CSV. `<table data-table="name">` names the exported file; without this script it
   is a plain table.
   - A column is numeric if its header has the class `number`. `data-value` of a cell is its value in full precision, in
     the unit of its text. A header with `data-plain` belongs to a column without values, such as one of bars or images.
   - `data-noun="unit|units"` names the rows. Tables of few rows have no filters.
   - `data-source` is the id of a JSON element with the rows of a large table: see gallery/table_data.py. Its rows are
     made when they are shown, a page at a time; `data-row-link` is the address of a row, with {column} for a value.
   - `data-address` keeps filters and order in the address of the page: #layer=relu3&dead=yes&sort=-max. */

(() => {
  const MIN_FILTER_ROWS = 6;
  const PAGE_ROWS = 100; // of a table whose rows are made when they are shown
  const EXAMPLE = "> 0.5, <= 3, 1..5, = 0 or empty";
  const NUMBER = "[-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:e[-+]?\\d+)?";
  const COMPARISONS = {
    ">": (a, b) => a > b, ">=": (a, b) => a >= b, "<": (a, b) => a < b, "<=": (a, b) => a <= b,
    "=": (a, b) => a === b, "!=": (a, b) => a !== b,
  };
  const collator = new Intl.Collator("en", { numeric: true });

  const normalize = (text) => text.replace(/−/g, "-").replace(/(\d),(?=\d{3})/g, "$1").trim();

  /* Parse a condition on numbers: comparisons, all of which must hold, a range, or `empty`. Return a function of a
     number, NaN where there is none; null for a text that is no condition. `round` gives numbers the precision of the
     column. */
  function parseCondition(text, round = (value) => value) {
    const condition = normalize(text).toLowerCase().replace(/≥/g, ">=").replace(/≤/g, "<=");
    if (/^(empty|nan)$/.test(condition)) return (value) => Number.isNaN(value);
    const range = condition.match(new RegExp(`^(${NUMBER})\\s*(?:\\.\\.|–|to)\\s*(${NUMBER})$`));
    if (range) return (value) => value >= round(Number(range[1])) && value <= round(Number(range[2]));
    const comparison = new RegExp(`(>=|<=|!=|>|<|=|^)\\s*(${NUMBER})(?:\\s+and\\b|,)?\\s*`, "g");
    const parts = [...condition.matchAll(comparison)];
    if (!parts.length || parts.map(([part]) => part).join("") !== condition) return null;
    const tests = parts.map(([, sign, number]) => [COMPARISONS[sign || "="], round(Number(number))]);
    return (value) => !Number.isNaN(value) && tests.every(([compare, number]) => compare(value, number));
  }

  /* The shortest decimal number that has this float32 value. */
  function formatFloat32(value) {
    for (let digits = 6; digits < 9; digits++) {
      const text = String(Number(value.toPrecision(digits)));
      if (Math.fround(Number(text)) === value) return text;
    }
    return String(Number(value.toPrecision(9)));
  }

  function formatShort(value) {
    if (Number.isNaN(value)) return "–";
    const isTiny = value !== 0 && Math.abs(value) < 1e-3;
    const text = isTiny ? value.toExponential(1) : String(Number(value.toPrecision(3)));
    return text.replace(/-/g, "−");
  }

  /* The text of a cell that can be seen. */
  function getText(cell) {
    const copy = cell.querySelector(".visually-hidden") ? cell.cloneNode(true) : cell;
    if (copy !== cell) copy.querySelectorAll(".visually-hidden").forEach((element) => element.remove());
    return copy.textContent.replace(/\s+/g, " ").trim();
  }

  const narrow = matchMedia("(max-width: 40rem)"); // as in style.css

  /* Let a long name break after its dots, slashes and underscores. */
  function allowBreaks(cell) {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    const texts = [];
    while (walker.nextNode()) texts.push(walker.currentNode);
    for (const text of texts.filter(({ data }) => data.length > 12)) {
      const parts = text.data.split(/(?<=[./_])/);
      text.replaceWith(...parts.flatMap((part, n) => (n ? [document.createElement("wbr"), part] : [part])));
    }
  }

  const quoteCsv = (text) => (/[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  const formatCsv = (rows) => rows.map((row) => row.map(quoteCsv).join(",")).join("\r\n") + "\r\n";

  /* The rows that are in the page. */
  class PageRows {
    constructor(table) {
      const body = table.tBodies[0];
      this.elements = [...body.rows];
      // Only where a screen has no room for names, since this adds elements.
      const allowAllBreaks = () => body.querySelectorAll('th[scope="row"]').forEach(allowBreaks);
      if (narrow.matches) allowAllBreaks();
      else narrow.addEventListener("change", allowAllBreaks, { once: true });
      const cells = this.elements.map((row) => [...row.cells]);
      this.length = cells.length;
      this.columns = [...table.tHead.rows[0].cells].map((header, n) => {
        const texts = cells.map((row) => (row[n] ? row[n].dataset.value ?? getText(row[n]) : ""));
        const isNumeric = header.classList.contains("number");
        const title = getText(header);
        const values = isNumeric ? texts.map((text) => parseFloat(normalize(text))) : texts;
        const isNumber = new RegExp(`^${NUMBER}\\s*%?$`, "i");
        const exported = isNumeric
          ? texts.map((text) => (isNumber.test(normalize(text)) ? normalize(text).replace(/\s*%$/, "") : text))
          : texts;
        return {
          key: header.dataset.key || title, title, isNumeric, isPlain: "plain" in header.dataset, values,
          format: (row) => (isNumeric && exported[row] === "–" ? "" : exported[row]),
        };
      });
    }

    getElement(row) {
      return this.elements[row];
    }
  }

  /* Rows in a JSON element: columns of float32 numbers, which of a column with `choices` are indices into them. */
  class DataRows {
    static async read(table) {
      const { columns, length, data } = JSON.parse(document.getElementById(table.dataset.source).textContent);
      const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      return new DataRows(table, columns, length, await new Response(stream).arrayBuffer());
    }

    constructor(table, columns, length, buffer) {
      Object.assign(this, { length, rowLink: table.dataset.rowLink });
      const bytes = new Uint8Array(buffer);
      this.columns = columns.map((column, n) => {
        // The bytes of a column lie in four planes, little-endian.
        const view = new DataView(new ArrayBuffer(4 * length));
        for (let plane = 0; plane < 4; plane++) {
          for (let row = 0; row < length; row++) view.setUint8(4 * row + plane, bytes[(4 * n + plane) * length + row]);
        }
        const values = new Float32Array(length);
        for (let row = 0; row < length; row++) values[row] = view.getFloat32(4 * row, true);
        const { choices } = column;
        const format = choices
          ? (row) => choices[values[row]] ?? ""
          : (row) => (Number.isNaN(values[row]) ? "" : formatFloat32(values[row]));
        return { ...column, isNumeric: !choices, values, format, round: Math.fround };
      });
    }

    getElement(row) {
      const isLinked = this.columns.every(({ unlinked, values }) => !unlinked || !unlinked.includes(values[row]));
      const link = isLinked && this.rowLink && this.rowLink.replace(/\{(.+?)\}/g, (_, key) =>
        encodeURIComponent(this.columns.find((column) => column.key === key).format(row)));
      const element = makeElement("tr", {}, ...this.columns.map((column) => {
        const text = column.choices ? column.format(row) : formatShort(column.values[row]);
        const content = column.is_link && link ? makeElement("a", { href: link }, text) : text;
        const attributes = column.is_header ? { scope: "row" } : {};
        return makeElement(column.is_header ? "th" : "td",
          { ...attributes, class: column.isNumeric ? "number" : null }, content);
      }));
      if (narrow.matches) allowBreaks(element.firstChild);
      return element;
    }
  }

  class DataTable {
    constructor(table, rows, hasPages) {
      Object.assign(this, { table, rows, page: 0, sorting: null, filters: new Map(), search: "" });
      this.pageRows = hasPages ? PAGE_ROWS : Infinity;
      this.nouns = (table.dataset.noun || "row|rows").split("|");
      this.name = table.dataset.table;
      this.headers = [...table.tHead.rows[0].cells];
      this.hasAddress = "address" in table.dataset;
      this.texts = null; // of the rows, for the search, made when they are first used
      rows.columns.forEach((column, n) => column.isPlain || this.addSortButton(column, this.headers[n]));
      this.addToolbar(rows.length >= MIN_FILTER_ROWS);
      if (hasPages) this.addPager();
      if (this.hasAddress) addEventListener("hashchange", () => this.readAddress());
      if (!this.hasAddress || !this.readAddress()) this.update();
    }

    addSortButton(column, header) {
      const term = header.querySelector("a.term"); // a button holds no link
      const label = term && `Definition of ${term.textContent}`;
      if (term) term.replaceWith(...term.childNodes);
      const button = makeElement("button", { type: "button", class: "sort", click: () => this.toggleSort(column) },
        ...header.childNodes);
      header.append(button);
      if (!term) return;
      term.textContent = "?";
      term.setAttribute("aria-label", label);
      header.append(term);
    }

    addToolbar(hasFilters) {
      this.count = makeElement("span", { class: "count", role: "status" });
      const download = makeElement("button", { type: "button", click: () => this.downloadCsv() }, "Export CSV");
      const controls = [];
      if (hasFilters) {
        this.addFilterRow();
        const search = makeElement("input", { type: "search", placeholder: "Search",
          "aria-label": `Search the ${this.nouns[1]}`,
          input: () => this.change(() => { this.search = search.value.trim().toLowerCase(); }) });
        this.filterButton = makeElement("button", { type: "button", "aria-expanded": "false",
          click: () => this.showFilters(this.filterRow.hidden) }, "Filter columns");
        controls.push(search, this.filterButton);
      }
      const toolbar = makeElement("div", { class: "table-tools" }, ...controls, this.count, download);
      (this.table.closest(".frame") || this.table).before(toolbar);
    }

    addFilterRow() {
      const cells = this.rows.columns.map((column) => {
        if (column.isPlain) return makeElement("td");
        const attributes = { "aria-label": `Filter ${column.title}` };
        if (column.choices && column.choices.length <= 1000) {
          column.input = makeElement("select", { ...attributes, change: () => this.filter(column) },
            makeElement("option", { value: "" }, "all"),
            ...column.choices.map((choice) => makeElement("option", { value: choice }, choice || "none")));
        } else {
          const title = column.isNumeric ? `A number or a condition: ${EXAMPLE}` : "Part of the text";
          column.input = makeElement("input", { ...attributes, type: "text", title, spellcheck: "false",
            autocomplete: "off", placeholder: column.isNumeric ? "> 0.5" : "", input: () => this.filter(column) });
        }
        return makeElement("td", {}, column.input);
      });
      this.filterRow = makeElement("tr", { class: "filters", hidden: true }, ...cells);
      this.table.tHead.append(this.filterRow);
    }

    addPager() {
      const makeButton = (text, step) => makeElement("button", { type: "button",
        click: () => { this.page += step; this.render(); } }, text);
      [this.previous, this.next] = [makeButton("Previous", -1), makeButton("Next", 1)];
      this.position = makeElement("span", { role: "status" });
      this.pager = makeElement("div", { class: "table-tools" }, this.previous, this.position, this.next);
      (this.table.closest(".frame") || this.table).after(this.pager);
    }

    showFilters(isShown) {
      this.filterRow.hidden = !isShown;
      this.filterButton.setAttribute("aria-expanded", isShown);
    }

    /* Change the filters or the order, and show the first page. */
    change(callback) {
      callback();
      this.update();
      this.writeAddress();
    }

    filter(column) {
      this.change(() => this.setTest(column));
    }

    /* Set the test of a column from its input; a text that is no condition is marked, and does not filter. */
    setTest(column) {
      const text = column.input.value.trim();
      let test = null;
      if (column.input.tagName === "SELECT") test = (row) => column.format(row) === text;
      else if (column.isNumeric) {
        const condition = parseCondition(text, column.round);
        test = condition && ((row) => condition(column.values[row]));
      } else test = (row) => column.format(row).toLowerCase().includes(text.toLowerCase());
      if (text && !test) column.input.setAttribute("aria-invalid", "true");
      else column.input.removeAttribute("aria-invalid");
      if (text && test) this.filters.set(column, test);
      else this.filters.delete(column);
    }

    /* Numbers are sorted from the largest first, texts from A; a second click reverses, a third restores the order. */
    toggleSort(column) {
      const first = column.isNumeric ? -1 : 1;
      const sign = !this.sorting || this.sorting.column !== column ? first : this.sorting.sign === first ? -first : 0;
      this.change(() => { this.sorting = sign ? { column, sign } : null; });
    }

    compare({ column, sign }) {
      const { values } = column;
      const isEmpty = (row) => values[row] === "" || Number.isNaN(values[row]);
      const compareValues = typeof values[0] === "number" ? (a, b) => a - b : collator.compare;
      return (a, b) => (isEmpty(a) || isEmpty(b)
        ? isEmpty(a) - isEmpty(b)
        : sign * compareValues(values[a], values[b])) || a - b;
    }

    matchesSearch(row) {
      const columns = this.rows.columns.filter((column) => !column.isNumeric || !this.pager);
      this.texts ||= Array.from({ length: this.rows.length }, (_, n) =>
        columns.map((column) => column.format(n)).join("\n").toLowerCase());
      return this.texts[row].includes(this.search);
    }

    update() {
      const tests = [...this.filters.values()];
      if (this.search) tests.push((row) => this.matchesSearch(row));
      const all = Array.from({ length: this.rows.length }, (_, row) => row);
      this.shown = all.filter((row) => tests.every((test) => test(row)));
      if (this.sorting) this.shown.sort(this.compare(this.sorting));
      this.page = 0;
      this.count.textContent = this.describeRows();
      this.rows.columns.forEach((column, n) => {
        const isSorted = this.sorting && this.sorting.column === column;
        if (isSorted) this.headers[n].setAttribute("aria-sort", this.sorting.sign > 0 ? "ascending" : "descending");
        else this.headers[n].removeAttribute("aria-sort");
      });
      this.render();
    }

    describeRows() {
      const invalid = this.rows.columns.find(({ input }) => input && input.hasAttribute("aria-invalid"));
      if (invalid) return `“${invalid.input.value}” is no condition on ${invalid.title}: write ${EXAMPLE}`;
      const [total, count] = [this.rows.length, this.shown.length].map((n) => n.toLocaleString("en"));
      const noun = this.nouns[this.rows.length === 1 ? 0 : 1];
      return this.shown.length < this.rows.length ? `${count} of ${total} ${noun}` : `${total} ${noun}`;
    }

    render() {
      const start = this.pager ? this.page * this.pageRows : 0;
      const rows = this.shown.slice(start, start + this.pageRows);
      this.table.tBodies[0].replaceChildren(...rows.map((row) => this.rows.getElement(row)));
      if (!this.pager) return;
      const end = start + rows.length;
      this.pager.hidden = this.shown.length <= this.pageRows;
      this.position.textContent = `Rows ${start + 1}–${end} of ${this.shown.length.toLocaleString("en")}`;
      this.previous.disabled = this.page === 0;
      this.next.disabled = end === this.shown.length;
    }

    /* Set filters and order from the address; return whether it has any. */
    readAddress() {
      const fields = new URLSearchParams(location.hash.slice(1));
      const columns = this.rows.columns.filter((column) => column.input);
      const isOwn = [...fields.keys()].every((key) => key === "sort" || columns.some((column) => column.key === key));
      if (!location.hash.includes("=") || !isOwn) return false;
      for (const column of columns) column.input.value = fields.get(column.key) ?? "";
      const [, sign, key] = (fields.get("sort") || "").match(/^(-?)(.*)$/);
      const column = this.rows.columns.find((candidate) => candidate.key === key);
      this.sorting = column ? { column, sign: sign ? -1 : 1 } : null;
      columns.forEach((filtered) => this.setTest(filtered));
      this.showFilters(true);
      this.update();
      return true;
    }

    writeAddress() {
      if (!this.hasAddress) return;
      const columns = this.rows.columns.filter((column) => column.input && column.input.value);
      const fields = new URLSearchParams(columns.map((column) => [column.key, column.input.value]));
      if (this.sorting) fields.set("sort", `${this.sorting.sign < 0 ? "-" : ""}${this.sorting.column.key}`);
      const hash = `${fields}` && `#${fields}`;
      history.replaceState(null, "", `${location.pathname}${location.search}${hash}`);
    }

    downloadCsv() {
      const columns = this.rows.columns.filter((column) => !column.isPlain);
      const rows = this.shown.map((row) => columns.map((column) => column.format(row)));
      const csv = formatCsv([columns.map((column) => column.title), ...rows]);
      const url = URL.createObjectURL(new Blob([csv], { type: "text/csv;charset=utf-8" }));
      makeElement("a", { href: url, download: `${this.name}.csv` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
    }
  }

  async function makeDataTable(table) {
    if (!table.dataset.source) return new DataTable(table, new PageRows(table), false);
    const data = new DataTable(table, await DataRows.read(table), true);
    data.showFilters(true);
    return data;
  }

  for (const table of document.querySelectorAll("table[data-table]")) makeDataTable(table);
})();

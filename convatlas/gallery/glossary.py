"""The terms of the field: marked where they first stand on a page, with their definitions."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources

import yaml

from convatlas.gallery.html_tree import VOID_TAGS
from convatlas.names import slugify

TAG = re.compile(r"<!--.*?-->|<(/?)([a-z][a-z0-9-]*)([^>]*)>", re.S)
WORD = re.compile(r"(?<![\w-])[^\W\d_][\w-]*")
# Elements whose text is no running text: links, headings, controls, code, formulas, and the user's data.
SKIPPED_TAGS = frozenset(
    "a button cite code h1 h2 h3 h4 h5 h6 kbd label legend nav noscript option pre script select style sub "
    "summary sup svg td textarea var".split()
)
SKIPPED_ATTRIBUTES = re.compile(
    r'\bhidden\b|scope="row"|class="[^"]*\b(?:formula|notes|slides|visually-hidden)\b'
)


@dataclass(frozen=True)
class Term:
    """A term of the glossary.

    Attributes:
        name: The term, with a capital.
        forms: Further forms under which it is found, besides a plural in s.
        definition: One or two sentences.
        source: Where the definition or the term is from.
        url: Its address, "" without one.
    """

    name: str
    forms: Sequence[str]
    definition: str
    source: str
    url: str

    @property
    def letter(self) -> str:
        """Return the letter under which the glossary lists it."""
        return self.name[0].upper()

    @property
    def slug(self) -> str:
        """Return its anchor on the page of the glossary."""
        return slugify(self.name).lower()


@cache
def read_terms() -> list[Term]:
    """Read the terms of glossary.yaml, in alphabetical order."""
    text = (resources.files("convatlas.gallery") / "templates/glossary.yaml").read_text(encoding="utf-8")
    return [
        Term(
            entry["term"],
            entry.get("forms", []),
            entry["definition"],
            entry["source"]["text"],
            entry["source"].get("url", ""),
        )
        for entry in sorted(yaml.safe_load(text), key=lambda entry: entry["term"].lower())
    ]


def mark_terms(html: str, root: str) -> str:
    """Mark each term where it first stands in the running text of a page.

    Text that is collapsed at first counts after all other text.

    Args:
        html: The page.
        root: The relative path from the page's folder to the site's root.

    Returns:
        The page with a link to the glossary, whose title is the definition, around the first place of each
        term.
    """
    texts = list(_find_texts(html))
    marked: dict[str, tuple[int, int, Term]] = {}
    for is_collapsed in (False, True):
        for start, end, collapsed in texts:
            if collapsed == is_collapsed:
                for place in _find_places(html, start, end):
                    marked.setdefault(place[2].name, place)
    parts = []
    position = 0
    for start, end, term in sorted(marked.values(), key=lambda place: place[0]):
        attributes = f'href="{root}glossary.html#{term.slug}" title="{escape(term.definition)}"'
        parts += [html[position:start], f'<a class="term" {attributes}>{html[start:end]}</a>']
        position = end
    return "".join([*parts, html[position:]])


def _find_texts(html: str) -> Iterator[tuple[int, int, bool]]:
    """Yield start and end of each running text in the main element, and whether it is collapsed at first."""
    skipped, depth = "", 0
    collapsed: list[bool] = []  # of each details element around the text
    position = html.find("<main")
    for match in TAG.finditer(html, max(position, 0), html.rfind("</main>") + 1):
        closing, tag, attributes = match.groups()
        if not skipped and position < match.start():
            yield position, match.start(), any(collapsed)
        position = match.end()
        if tag is None or tag in VOID_TAGS:
            continue
        if skipped:
            depth += (tag == skipped) * (-1 if closing else 1)
            skipped = skipped if depth else ""
        elif closing:
            if tag == "details":
                collapsed.pop()
        elif tag in SKIPPED_TAGS or SKIPPED_ATTRIBUTES.search(attributes):
            skipped, depth = tag, 1
        elif tag == "details":
            collapsed.append(" open" not in attributes)


def _find_places(html: str, start: int, end: int) -> Iterator[tuple[int, int, Term]]:
    """Yield the places of terms in a text, of two terms at one place the longer one."""
    forms = _compile_forms()
    position = start
    for word in WORD.finditer(html, start, end):
        pattern = forms.get(word[0].lower())
        if pattern is None or word.start() < position:
            continue
        match = pattern[0].match(html, word.start(), end)
        if match:
            position = match.end()
            key = " ".join(match[0].lower().split())
            yield match.start(), match.end(), pattern[1].get(key) or pattern[1][key.removesuffix("s")]


@cache
def _compile_forms() -> Mapping[str, tuple[re.Pattern[str], Mapping[str, Term]]]:
    """Compile a pattern of the forms that begin with a word, by that word in lower case."""
    by_word: dict[str, dict[str, Term]] = {}
    for term in read_terms():
        for form in (term.name.lower(), *(form.lower() for form in term.forms)):
            first_word = WORD.findall(form)[0]
            for word in (first_word, f"{first_word}s") if first_word == form else (first_word,):
                by_word.setdefault(word, {})[form] = term
    return {word: (_compile_pattern(sorted(forms, key=len)[::-1]), forms) for word, forms in by_word.items()}


def _compile_pattern(forms: Sequence[str]) -> re.Pattern[str]:
    alternatives = "|".join(r"\s+".join(map(re.escape, form.split())) for form in forms)
    return re.compile(rf"(?:{alternatives})s?(?![\w-])", re.I)

"""A check of a user's config file: size, nesting, anchors, tags and templates.

`make` runs it before Snakemake reads the file. With plain `snakemake --configfile` it runs in the Snakefile,
when Snakemake has read the file already.
"""

from pathlib import Path

import yaml

from convatlas import UserError

MAX_BYTES = 1_000_000
MAX_DEPTH = 50  # levels of nesting; the deepest key of the schema is at 7
MAX_VALUES = 100_000  # with those that aliases repeat
TEMPLATE_KEY = "__use_yte__"  # with which Snakemake runs Python code in a config
PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}


def check_config_file(path: str | Path) -> None:
    """Check that a config file holds plain data of a bounded size.

    Args:
        path: A YAML or JSON file.

    Raises:
        UserError: The file cannot be read, is no YAML, has tags such as !!python/name, runs code as a
            template, or is too large, too deeply nested or multiplied by aliases.
    """
    try:
        content = _read_start(Path(path)) if Path(path).is_file() else None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if content is None:
        raise UserError(f"{path}: there is no such file; CONFIG names a YAML file")
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES:,} bytes, which no config has")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; save the file in UTF-8") from error
    try:
        _EventCheck(str(path)).check(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not YAML: {error.problem} {error.context or ''}".rstrip()) from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _read_start(path: Path) -> bytes:
    """Read a file, or one byte more than a config may have."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


class _EventCheck:
    """A pass over the events of a YAML parser, which builds no values.

    Args:
        path: The file, for messages.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.open_values = [0]  # values within each open collection, the document's first
        self.open_anchors: list[str | None] = []
        self.anchored_values: dict[str, int] = {}

    def check(self, text: str) -> None:
        """Raise UserError at the first event that a config cannot have."""
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            self.line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.AliasEvent):
                self._add_alias(str(event.anchor))
            elif isinstance(event, yaml.NodeEvent):
                self._add_node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close_collection()

    def _add_alias(self, anchor: str) -> None:
        if anchor in self.open_anchors:
            self._refuse(f"the alias *{anchor} stands within its own anchor")
        if anchor not in self.anchored_values:
            self._refuse(f"the alias *{anchor} has no anchor before it")
        self._count(self.anchored_values[anchor])

    def _add_node(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in PLAIN_TAGS:
            name = tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(
                f"the tag {name} is not allowed: a config is plain text, numbers, lists and mappings"
            )
        if any("\ud800" <= character <= "\udfff" for character in getattr(event, "value", "")):
            self._refuse("a lone surrogate, which is no character: write the character itself, in UTF-8")
        self._count(1)
        if isinstance(event, yaml.CollectionStartEvent):
            self.open_values.append(1)
            self.open_anchors.append(event.anchor)
            if len(self.open_anchors) > MAX_DEPTH:
                self._refuse(f"more than {MAX_DEPTH} levels of nesting")
        else:
            if event.anchor:
                self.anchored_values[event.anchor] = 1
            if getattr(event, "value", None) == TEMPLATE_KEY:  # anywhere: merges and aliases move keys
                self._refuse(f"{TEMPLATE_KEY} would run code in the config, which is not allowed: remove it")

    def _close_collection(self) -> None:
        values, anchor = self.open_values.pop(), self.open_anchors.pop()
        if anchor:
            self.anchored_values[anchor] = values
        self.open_values[-1] += values - 1

    def _count(self, values: int) -> None:
        self.open_values[-1] += values
        if sum(self.open_values) > MAX_VALUES:
            self._refuse(f"more than {MAX_VALUES:,} values, with those that aliases repeat")

    def _refuse(self, reason: str) -> None:
        raise UserError(f"{self.path}, line {self.line}: {reason}")

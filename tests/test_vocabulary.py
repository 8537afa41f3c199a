"""The words of pages, documentation and log lines are those of the field, not words of this project's own."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.workspace import ROOT

# A word that is not used, and the standard one in its place.
REPLACED_WORDS = {
    r"answers most|the unit that answers": "most active unit",
    r"nowhere positive|silent units?": "inactive, or dead",
    r"what excites": "top-activating images",
    r"tell classes apart": "class-selective",
    r"commonest mistake|taken for \d": "most frequent confusion",
    r"images? looked at": "sample images",
    r"looked at once": "evaluated once",
    r"untrained below": "95th percentile of the untrained network",
    r"likest": "most similar",
    r"colours about grey": "RGB, grey = 0",
    r"spoke for": "contributed positively to",
    r"not turned round": "the kernel is not flipped",
    r"fades like a bell": "roughly Gaussian",
    r"where the mask appears": "where segmentation emerges",
    r"call every pixel": "all-pet baseline",
    r"\bplates?\b": "figure",
    r"the same picture": "the same projection",
    r"as the network (?:saw|sees|takes) it": "network input",
    r"show where, hardly": "projections of different units hardly differ",
    r"made-up": "synthetic, or invented",
    r"\b(?:test|train)-\d{5}\b(?!\.npz|`|\")": "dog, test image 47",
}
PATTERN = re.compile("|".join(REPLACED_WORDS), re.I)


def list_texts() -> list[Path]:
    """Return the files whose text readers see."""
    gallery = ROOT / "convatlas/gallery"
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config*.yaml")]
    return sorted([*files, *gallery.glob("templates/*"), *gallery.glob("static/*.js")])


def read_strings(path: Path) -> list[str]:
    """Return the string literals of a module that are no docstrings: captions, messages, log lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.value) for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # fmt: skip
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [node.value for node in constants if isinstance(node.value, str) and id(node) not in docstrings]


@pytest.mark.parametrize("path", list_texts(), ids=lambda path: path.name)
def test_texts_use_the_words_of_the_field(path: Path) -> None:
    assert not PATTERN.findall(path.read_text(encoding="utf-8"))


def test_captions_messages_and_log_lines_use_the_words_of_the_field() -> None:
    modules = sorted([*(ROOT / "convatlas").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])
    texts = {path: found for path in modules if (found := PATTERN.findall("\n".join(read_strings(path))))}
    assert not texts

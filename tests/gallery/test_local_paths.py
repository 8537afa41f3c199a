"""No page or published file holds an absolute path of the machine that ran the pipeline."""

import json
from pathlib import Path
from typing import Any

import pytest

from convatlas.gallery.local_paths import hide_local_paths
from tests.support.fake_results import make_results
from tests.support.site import CONFIG, build_site, write_network


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory below a home folder."""
    (tmp_path / "home/ada/project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home/ada"))
    monkeypatch.chdir(tmp_path / "home/ada/project")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{cwd}/nets/my net.py:build", "nets/my net.py:build"),
        ("{home}/other/net.py:build", "net.py:build"),
        ("/mnt/große Platte/epoch.pth", "epoch.pth"),
        ("~/w/epoch.pth", "epoch.pth"),
        ("nets/net.py:build", "nets/net.py:build"),
        ("cannot open {home}/a.png and {cwd}/b.png", "cannot open ~/a.png and b.png"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("/", "/"),
        ("width / height", "width / height"),
    ],
)
def test_paths_are_relative_to_the_project_or_the_name_of_the_file(text: str, expected: str) -> None:
    assert hide_local_paths([text.format(cwd=Path.cwd(), home=Path.home())]) == [expected]


def test_a_gallery_with_its_numbers_holds_no_path_of_this_machine() -> None:
    cwd, home = Path.cwd(), Path.home()
    results = make_results()
    results.network |= {
        "architecture": f"{cwd}/net.py:build",
        "arguments": {"file": f"{home}/anchors.txt"},
        "training": None,
        "weights": {"origin": f"{home}/epoch.pth", "sha256": "ab" * 32},
    }
    results.images = [image | {"index": None, "path": f"{home}/猫.png"} for image in results.images]
    write_network(cwd, "own", results)
    own: dict[str, Any] = {
        "architecture": f"{cwd}/net.py:build",
        "weights": {"path": f"{home}/epoch.pth"},
        "images": {"files": [f"{home}/pictures"]},
        "views": CONFIG["networks"]["own"]["views"],
    }
    config = CONFIG | {"networks": {"own": own}, "publish": {"tensors": True, "weights": False}}
    site = build_site(cwd, "own", config=config)
    texts = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert [path for path, text in texts.items() if b"home/ada" in text] == []
    network = json.loads(texts[site / "arrays/own/network.json"])
    assert (network["architecture"], network["arguments"]) == ("net.py:build", {"file": "anchors.txt"})
    assert "猫.png" in texts[site / "networks/own.html"].decode()

"""MNIST and Oxford-IIIT Pet downloaded, from servers that have everything, a part, or something else."""

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convatlas import UserError
from convatlas.datasets import download
from convatlas.datasets.formats import describe, load
from tests.datasets.test_download import Server, serving
from tests.datasets.test_formats import IMAGES, KEY, LABELS, PACKED, assert_made, flipped, make
from tests.datasets.test_oxford_pets import TEST, TRAINVAL, lay_out
from tests.datasets.test_oxford_pets import make as make_pets


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves nothing yet; downloads wait for nothing."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with serving() as server:
        yield server


def on_waiting(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[float]:
    """Call `act` whenever the download waits for its next round; give the waits."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        act()

    monkeypatch.setattr(download.time, "sleep", sleep)
    return waits


# MNIST


@pytest.fixture
def digits(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server has ARRAYS under /good/; torchvision knows their checksums and no mirrors of its own."""
    from torchvision.datasets import MNIST  # noqa: PLC0415  seconds to import

    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in PACKED.items()]
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(MNIST, "mirrors", [])
    server.files = {f"/good/{name}": content for name, content in PACKED.items()}
    return server


@pytest.mark.parametrize("slash", ["", "/"])
def test_download(digits: Server, tmp_path: Path, slash: str) -> None:
    make(tmp_path, "download", [f"{digits.address}/good{slash}"])
    assert_made(tmp_path)
    assert describe(tmp_path)["source"] == "download"


def test_torchvisions_own_mirrors_come_last(
    digits: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST  # noqa: PLC0415

    monkeypatch.setattr(MNIST, "mirrors", [f"{digits.address}/good/"])
    make(tmp_path, "download", [f"{digits.address}/none"])
    assert_made(tmp_path)
    assert digits.asked[0].startswith("/none/")


def test_a_second_mirror_serves_what_the_first_lacks(digits: Server, tmp_path: Path) -> None:
    make(tmp_path, "download", [f"{digits.address}/none/", f"{digits.address}/good/"])
    assert_made(tmp_path)


@pytest.mark.parametrize(
    "content",
    [flipped(PACKED[f"{IMAGES}.gz"], 400), b"<html>Please log in</html>", b"", PACKED[f"{LABELS}.gz"]],
    ids=["flipped", "a page", "empty", "another file"],
)
def test_a_second_mirror_serves_what_the_first_has_corrupted(
    digits: Server, tmp_path: Path, content: bytes
) -> None:
    digits.files[f"/bad/{IMAGES}.gz"] = content
    make(tmp_path, "download", [f"{digits.address}/bad/", f"{digits.address}/good/"])
    assert_made(tmp_path)


def test_a_truncated_download_is_tried_again(
    digits: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/good/{IMAGES}.gz"
    digits.cut[path] = 1000
    waits = on_waiting(monkeypatch, digits.cut.clear)
    make(tmp_path, "download", [f"{digits.address}/good/"])
    assert_made(tmp_path)
    assert len(waits) == 1, "mended while it waited once"


def test_a_download_that_fails_everywhere_says_where_and_what_to_do(
    digits: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = on_waiting(monkeypatch, lambda: None)
    digits.files = {f"/bad/{name}": b"bad" for name in PACKED}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{closed.getsockname()[1]}"
    mirrors = [f"{digits.address}/none/", f"{digits.address}/bad/", f"{refusing}/"]
    with pytest.raises(UserError) as error:
        make(tmp_path / "made", "download", mirrors)
    message = str(error.value)
    assert message.startswith(f"{KEY}: ")
    for mirror, fault in zip(mirrors, ("404", "corrupted", "refused"), strict=True):
        assert [fault in line for line in message.splitlines() if f"{mirror}{IMAGES}.gz" in line] == [True]
    assert "mirrors" in message
    assert "directory" in message
    assert list((tmp_path / "made").rglob("*")) == []
    assert len(waits) == 2
    assert waits == sorted(waits)


def test_a_later_file_that_fails_does_not_cost_the_earlier_ones(digits: Server, tmp_path: Path) -> None:
    last = digits.files.pop(f"/good/{LABELS}.gz")
    with pytest.raises(UserError, match=LABELS):
        make(tmp_path / "made", "download", [f"{digits.address}/good/"])
    there = {str(path.relative_to(tmp_path / "made")) for path in (tmp_path / "made").rglob("*")}
    assert there == {".partial", *(f".partial/{name}" for name in PACKED if LABELS not in name)}
    digits.files[f"/good/{LABELS}.gz"] = last
    digits.asked.clear()
    make(tmp_path / "made", "download", [f"{digits.address}/good/"])
    assert_made(tmp_path / "made")
    assert digits.asked == [f"/good/{LABELS}.gz"]


def test_a_server_that_hangs_up_is_reported(digits: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:
        stop = threading.Event()

        def hang_up() -> None:
            while not stop.is_set():
                connection, _ = rude.accept()
                connection.recv(1 << 16)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"http://127.0.0.1:{rude.getsockname()[1]}/"
        with pytest.raises(UserError, match=address):
            make(tmp_path / "made", "download", [address])
        stop.set()
        socket.create_connection(rude.getsockname()).close()
        thread.join()


def test_a_server_that_never_answers_is_given_up(
    digits: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(UserError, match=f"{address}.*timed out"):
            make(tmp_path / "made", "download", [address])
    assert list((tmp_path / "made").rglob("*")) == []


# Oxford-IIIT Pet


@pytest.fixture
def pets(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server has a small set's archives under /own/, torchvision's address; .partial/ holds a part."""
    from torchvision.datasets import OxfordIIITPet  # noqa: PLC0415  seconds to import

    lay_out(tmp_path / "theirs")
    resources = []
    for name in ("images", "annotations"):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(tmp_path / "theirs" / name, name)
        server.files[f"/own/{name}.tar.gz"] = packed.getvalue()
        md5 = hashlib.md5(packed.getvalue()).hexdigest()
        resources.append((f"{server.address}/own/{name}.tar.gz", md5))
    monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", resources)
    return server


def test_pets_are_downloaded_and_unpacked(pets: Server, tmp_path: Path) -> None:
    pets.ranges, pets.cut["/near/images.tar.gz"] = True, 1000
    pets.files["/near/images.tar.gz"] = pets.files["/own/images.tar.gz"]
    found = make_pets(tmp_path / "made", "download", mirrors=[f"{pets.address}/near"])
    assert pets.asked == [
        f"/{place}.tar.gz" for place in ("near/images", "own/images", "near/annotations", "own/annotations")
    ]
    assert pets.starts == [0, 1000, 0, 0]
    assert (found["title"], found["source"]) == ("Oxford-IIIT Pet", "download")
    assert found["sha256"] == make_pets(tmp_path / "linked", tmp_path / "theirs")["sha256"]
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        *("oxford-iiit-pet", "splits.csv", "dataset.json")
    }
    assert {path.name for path in (tmp_path / "made/oxford-iiit-pet").iterdir()} == {"images", "annotations"}
    for split, lines in {"train": TRAINVAL, "test": TEST}.items():
        examples = load(tmp_path / "made", split)
        assert examples.names == [name for name, *_ in lines]
        for n, name in enumerate(examples.names):
            assert (
                Path(examples.paths[n]).read_bytes() == (tmp_path / f"theirs/images/{name}.jpg").read_bytes()
            )


def test_archives_are_kept_until_all_are_there(pets: Server, tmp_path: Path) -> None:
    pets.cut["/own/annotations.tar.gz"] = 10
    with pytest.raises(UserError, match=r"could not download annotations\.tar\.gz"):
        make_pets(tmp_path / "made", "download")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "made/.partial").iterdir()}
    annotations = pets.files["/own/annotations.tar.gz"][:10]
    assert kept == {"images.tar.gz": pets.files["/own/images.tar.gz"], "annotations.tar.gz": annotations}
    assert {path.name for path in (tmp_path / "made").iterdir()} == {".partial"}
    pets.cut.clear()
    pets.asked.clear()
    make_pets(tmp_path / "made", "download")
    assert pets.asked == ["/own/annotations.tar.gz"]
    assert not (tmp_path / "made/.partial").exists()


def test_an_archive_that_leaves_its_folder_is_refused(
    pets: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(tmp_path / "theirs/annotations/test.txt", "../../outside.txt")
    pets.files["/own/images.tar.gz"] = packed.getvalue()
    monkeypatch.setattr(download, "md5", lambda path: "")
    monkeypatch.setattr(download, "_verify", lambda path, md5: None)
    with pytest.raises(UserError, match=r"images\.tar\.gz.*outside"):
        make_pets(tmp_path / "made", "download")
    assert not list(tmp_path.rglob("outside.txt"))

"""MNIST and Oxford-IIIT Pet downloaded from servers that have everything, a part, or something else."""

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convatlas import UserError, download
from convatlas.datasets.formats import describe, load
from tests.support.file_server import FileServer, serve_files
from tests.support.mnist_source import IMAGES, KEY, LABELS, PACKED, check_prepared, flip_byte, prepare_mnist
from tests.support.pets_source import TEST, TRAINVAL, prepare_pets, write_pets_source


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Yield a server without files; downloads do not wait between rounds."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with serve_files() as server:
        yield server


def call_while_waiting(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[float]:
    """Call `act` whenever the download waits for its next round; return the waits."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        act()

    monkeypatch.setattr(download.time, "sleep", sleep)
    return waits


# MNIST


@pytest.fixture
def digits(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """Return a server with ARRAYS under /good/; torchvision knows their checksums and has no mirrors."""
    from torchvision.datasets import MNIST  # noqa: PLC0415  seconds to import

    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in PACKED.items()]
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(MNIST, "mirrors", [])
    server.files = {f"/good/{name}": content for name, content in PACKED.items()}
    return server


@pytest.mark.parametrize("slash", ["", "/"])
def test_download(digits: FileServer, tmp_path: Path, slash: str) -> None:
    prepare_mnist(tmp_path, "download", [f"{digits.address}/good{slash}"])
    check_prepared(tmp_path)
    assert describe(tmp_path)["source"] == "download"


def test_torchvisions_own_mirrors_come_last(
    digits: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST  # noqa: PLC0415

    monkeypatch.setattr(MNIST, "mirrors", [f"{digits.address}/good/"])
    prepare_mnist(tmp_path, "download", [f"{digits.address}/none"])
    check_prepared(tmp_path)
    assert digits.requested_paths[0].startswith("/none/")


def test_a_second_mirror_serves_what_the_first_lacks(digits: FileServer, tmp_path: Path) -> None:
    prepare_mnist(tmp_path, "download", [f"{digits.address}/none/", f"{digits.address}/good/"])
    check_prepared(tmp_path)


@pytest.mark.parametrize(
    "content",
    [flip_byte(PACKED[f"{IMAGES}.gz"], 400), b"<html>Please log in</html>", b"", PACKED[f"{LABELS}.gz"]],
    ids=["flipped", "a page", "empty", "another file"],
)
def test_a_second_mirror_serves_what_the_first_has_corrupted(
    digits: FileServer, tmp_path: Path, content: bytes
) -> None:
    digits.files[f"/bad/{IMAGES}.gz"] = content
    prepare_mnist(tmp_path, "download", [f"{digits.address}/bad/", f"{digits.address}/good/"])
    check_prepared(tmp_path)


def test_a_truncated_download_is_tried_again(
    digits: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/good/{IMAGES}.gz"
    digits.cut[path] = 1000
    waits = call_while_waiting(monkeypatch, digits.cut.clear)
    prepare_mnist(tmp_path, "download", [f"{digits.address}/good/"])
    check_prepared(tmp_path)
    assert len(waits) == 1, "repaired while it waited once"


def test_a_download_that_fails_everywhere_names_the_mirrors_and_a_way_out(
    digits: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = call_while_waiting(monkeypatch, lambda: None)
    digits.files = {f"/bad/{name}": b"bad" for name in PACKED}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{closed.getsockname()[1]}"
    mirrors = [f"{digits.address}/none/", f"{digits.address}/bad/", f"{refusing}/"]
    with pytest.raises(UserError) as error:
        prepare_mnist(tmp_path / "data", "download", mirrors)
    message = str(error.value)
    assert message.startswith(f"{KEY}: ")
    for mirror, fault in zip(mirrors, ("404", "corrupted", "refused"), strict=True):
        assert [fault in line for line in message.splitlines() if f"{mirror}{IMAGES}.gz" in line] == [True]
    assert "mirrors" in message
    assert "directory" in message
    assert list((tmp_path / "data").rglob("*")) == []
    assert len(waits) == 2
    assert waits == sorted(waits)


def test_complete_files_are_kept_when_a_later_file_fails(digits: FileServer, tmp_path: Path) -> None:
    last = digits.files.pop(f"/good/{LABELS}.gz")
    with pytest.raises(UserError, match=LABELS):
        prepare_mnist(tmp_path / "data", "download", [f"{digits.address}/good/"])
    paths = {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*")}
    assert paths == {".partial", *(f".partial/{name}" for name in PACKED if LABELS not in name)}
    digits.files[f"/good/{LABELS}.gz"] = last
    digits.requested_paths.clear()
    prepare_mnist(tmp_path / "data", "download", [f"{digits.address}/good/"])
    check_prepared(tmp_path / "data")
    assert digits.requested_paths == [f"/good/{LABELS}.gz"]


def test_a_server_that_closes_the_connection_is_reported(digits: FileServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def hang_up() -> None:
            while not stop.is_set():
                connection, _ = listener.accept()
                connection.recv(1 << 16)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(UserError, match=address):
            prepare_mnist(tmp_path / "data", "download", [address])
        stop.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join()


def test_a_server_that_never_responds_is_given_up(
    digits: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(UserError, match=f"{address}.*timed out"):
            prepare_mnist(tmp_path / "data", "download", [address])
    assert list((tmp_path / "data").rglob("*")) == []


# Oxford-IIIT Pet


@pytest.fixture
def pets(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """Return a server with the archives of a small set under /own/, which is torchvision's address."""
    from torchvision.datasets import OxfordIIITPet  # noqa: PLC0415  seconds to import

    write_pets_source(tmp_path / "source")
    resources = []
    for name in ("images", "annotations"):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(tmp_path / "source" / name, name)
        server.files[f"/own/{name}.tar.gz"] = packed.getvalue()
        md5 = hashlib.md5(packed.getvalue()).hexdigest()
        resources.append((f"{server.address}/own/{name}.tar.gz", md5))
    monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", resources)
    return server


def test_pets_are_downloaded_and_unpacked(pets: FileServer, tmp_path: Path) -> None:
    pets.ranges, pets.cut["/near/images.tar.gz"] = True, 1000
    pets.files["/near/images.tar.gz"] = pets.files["/own/images.tar.gz"]
    description = prepare_pets(tmp_path / "data", "download", mirrors=[f"{pets.address}/near"])
    assert pets.requested_paths == [
        f"/{place}.tar.gz" for place in ("near/images", "own/images", "near/annotations", "own/annotations")
    ]
    assert pets.starts == [0, 1000, 0, 0]
    assert (description["title"], description["source"]) == ("Oxford-IIIT Pet", "download")
    assert description["sha256"] == prepare_pets(tmp_path / "linked", tmp_path / "source")["sha256"]
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        *("oxford-iiit-pet", "splits.csv", "dataset.json")
    }
    assert {path.name for path in (tmp_path / "data/oxford-iiit-pet").iterdir()} == {"images", "annotations"}
    for split, lines in {"train": TRAINVAL, "test": TEST}.items():
        dataset = load(tmp_path / "data", split)
        assert dataset.names == [name for name, *_ in lines]
        for n, name in enumerate(dataset.names):
            assert (
                Path(dataset.paths[n]).read_bytes() == (tmp_path / f"source/images/{name}.jpg").read_bytes()
            )


def test_archives_are_kept_until_all_are_complete(pets: FileServer, tmp_path: Path) -> None:
    pets.cut["/own/annotations.tar.gz"] = 10
    with pytest.raises(UserError, match=r"could not download annotations\.tar\.gz"):
        prepare_pets(tmp_path / "data", "download")
    partial_files = {path.name: path.read_bytes() for path in (tmp_path / "data/.partial").iterdir()}
    annotations = pets.files["/own/annotations.tar.gz"][:10]
    assert partial_files == {
        "images.tar.gz": pets.files["/own/images.tar.gz"],
        "annotations.tar.gz": annotations,
    }
    assert {path.name for path in (tmp_path / "data").iterdir()} == {".partial"}
    pets.cut.clear()
    pets.requested_paths.clear()
    prepare_pets(tmp_path / "data", "download")
    assert pets.requested_paths == ["/own/annotations.tar.gz"]
    assert not (tmp_path / "data/.partial").exists()


def test_an_archive_that_leaves_its_folder_is_refused(
    pets: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(tmp_path / "source/annotations/test.txt", "../../outside.txt")
    pets.files["/own/images.tar.gz"] = packed.getvalue()
    monkeypatch.setattr(download, "md5", lambda path: "")
    monkeypatch.setattr(download, "_verify", lambda path, md5: None)
    with pytest.raises(UserError, match=r"images\.tar\.gz.*outside"):
        prepare_pets(tmp_path / "data", "download")
    assert not list(tmp_path.rglob("outside.txt"))

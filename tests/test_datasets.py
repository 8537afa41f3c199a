"""Data sets from every source: embedded, a directory, a download from a server that misbehaves."""

import gzip
import hashlib
import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convatlas import UserError, datasets
from convatlas.datasets import describe, load, prepare_mnist, read_idx, write_idx

KEY = "datasets.d.source"
RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (12, 28, 28), np.uint8),
    "train-labels-idx1-ubyte": np.arange(12, dtype=np.uint8) % 10,
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (5, 28, 28), np.uint8),
    "t10k-labels-idx1-ubyte": np.array([3, 1, 4, 1, 5], np.uint8),
}


def idx(array: np.ndarray) -> bytes:
    """Pack unsigned bytes as the idx format has them."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return header + bytes(array.ravel().tolist())


FILES = {name: idx(array) for name, array in ARRAYS.items()}
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in FILES.items()}


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    (folder / "MNIST/raw").mkdir(parents=True)
    for name, content in files.items():
        (folder / "MNIST/raw" / name).write_bytes(content)
    return folder


def assert_made(folder: Path) -> None:
    """Check that the folder holds ARRAYS, and nothing besides."""
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        images, labels = load(folder, split)
        np.testing.assert_array_equal(images[:, 0], ARRAYS[f"{prefix}-images-idx3-ubyte"])
        np.testing.assert_array_equal(labels, ARRAYS[f"{prefix}-labels-idx1-ubyte"])
    assert {path.name for path in folder.iterdir()} == {"MNIST", "dataset.json"}
    assert {path.name for path in (folder / "MNIST").rglob("*")} == {"raw", *FILES}


# The idx format


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (1, 2, 3, 4), (0, 28, 28), (300,)])
def test_idx_files_are_written_and_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = RNG.integers(0, 256, shape, np.uint8)
    write_idx(tmp_path / "written", array)
    assert (tmp_path / "written").read_bytes() == idx(array)
    (tmp_path / "by hand").write_bytes(idx(array))
    found = read_idx(tmp_path / "by hand")
    assert (found.dtype, found.shape) == (np.uint8, shape)
    np.testing.assert_array_equal(found, array)


def test_idx_values_of_a_transposed_array_are_in_reading_order(tmp_path: Path) -> None:
    write_idx(tmp_path / "a", np.array([[1, 2, 3], [4, 5, 6]]).T)
    assert (tmp_path / "a").read_bytes() == bytes([0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 4, 2, 5, 3, 6])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "no idx file"),
        (bytes([0, 0, 8]), "no idx file"),
        (bytes([0, 1, 8, 1, 0, 0, 0, 1, 7]), "no idx file"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 7, 7, 7, 7]), "no idx file"),
        (bytes([0, 0, 8, 0, 7]), "no idx file"),
        (PACKED["t10k-labels-idx1-ubyte.gz"], "no idx file"),
        (FILES["t10k-images-idx3-ubyte"][:4], "truncated"),
        (FILES["t10k-images-idx3-ubyte"][:15], "truncated"),
        (FILES["t10k-images-idx3-ubyte"][:16], "truncated"),
        (FILES["t10k-images-idx3-ubyte"][:-1], "truncated"),
        (FILES["t10k-images-idx3-ubyte"] + b"x", "altered"),
        (bytes([0, 0, 8, 4, *[255] * 16]), "truncated"),
    ],
)
def test_a_file_that_is_no_whole_idx_file_is_reported(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "some-file").write_bytes(content)
    with pytest.raises(UserError, match=f"some-file.*{fault}"):
        read_idx(tmp_path / "some-file")


def test_a_missing_idx_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="some-file"):
        read_idx(tmp_path / "some-file")


# Embedded digits


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    prepare_mnist(folder, "embedded", [])
    return folder


@pytest.fixture(scope="module")
def digits(embedded: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels to train on, images and labels to test on."""
    return *load(embedded, "train"), *load(embedded, "test")


def test_embedded_digits_are_all_there(digits: tuple[np.ndarray, ...]) -> None:
    train_images, train_labels, test_images, test_labels = digits
    assert len(train_images) + len(test_images) == 1797
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        assert (images.dtype, images.shape) == (np.uint8, (len(labels), 1, 28, 28))
        assert labels.dtype == np.int64
        assert set(labels.tolist()) == set(range(10))


def test_embedded_digits_are_split_by_class(digits: tuple[np.ndarray, ...]) -> None:
    _, train_labels, _, test_labels = digits
    share = len(test_labels) / 1797
    for digit in range(10):
        tested = sum(label == digit for label in test_labels.tolist())
        trained = sum(label == digit for label in train_labels.tolist())
        assert abs(tested - share * (tested + trained)) <= 1


def test_no_embedded_digit_is_in_both_splits(digits: tuple[np.ndarray, ...]) -> None:
    train, test = ({image.tobytes() for image in images} for images in (digits[0], digits[2]))
    assert not train & test
    assert len(train) + len(test) == 1797


def test_embedded_digits_are_sized_and_centred_as_mnists_are(digits: tuple[np.ndarray, ...]) -> None:
    for image in np.concatenate([digits[0], digits[2]])[:, 0]:
        rows = [y for y in range(28) if any(image[y])]
        columns = [x for x in range(28) if any(image[:, x])]
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 == 20
        weights = image.astype(float)
        y, x = np.average(np.indices((28, 28)), axis=(1, 2), weights=np.stack([weights, weights]))
        assert max(abs(y - 13.5), abs(x - 13.5)) <= 1
        assert image.max() > 200


def test_embedded_digits_look_like_scikit_learns(digits: tuple[np.ndarray, ...]) -> None:
    """Each class's mean image resembles the mean of the originals more than those of other classes."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  a second to import

    originals = load_digits()
    images, labels = np.concatenate([digits[0], digits[2]])[:, 0], np.concatenate([digits[1], digits[3]])
    assert np.bincount(labels).tolist() == np.bincount(originals.target).tolist()
    ours = [images[labels == c, 4:24, 4:24].mean(0).reshape(4, 5, 4, 5).mean((1, 3)) for c in range(10)]
    theirs = [
        originals.images[originals.target == c].mean(0).reshape(4, 2, 4, 2).mean((1, 3)) for c in range(10)
    ]
    likeness = np.corrcoef([m.ravel() for m in ours + theirs])[:10, 10:]
    assert likeness.argmax(1).tolist() == list(range(10))


def test_embedded_digits_are_the_same_twice(embedded: Path, tmp_path: Path) -> None:
    prepare_mnist(tmp_path, "embedded", [])
    names = sorted(path.relative_to(embedded) for path in embedded.rglob("*") if path.is_file())
    assert len(names) == 5
    for name in names:
        assert (embedded / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_torchvision_reads_embedded_digits(embedded: Path, digits: tuple[np.ndarray, ...]) -> None:
    from torchvision.datasets import MNIST  # noqa: PLC0415  seconds to import

    for train in (True, False):
        found = MNIST(root=embedded, train=train, download=False)
        images, labels = digits[:2] if train else digits[2:]
        np.testing.assert_array_equal(found.data.numpy(), images[:, 0])
        np.testing.assert_array_equal(found.targets.numpy(), labels)


# A directory


def test_plain_files_of_a_directory_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = lay_out(tmp_path / "theirs", FILES)
    monkeypatch.chdir(tmp_path)
    prepare_mnist("made/d", "theirs", [])
    monkeypatch.chdir("/")
    assert_made(tmp_path / "made/d")
    for name in FILES:
        made = tmp_path / "made/d/MNIST/raw" / name
        assert made.is_symlink()
        assert made.samefile(source / "MNIST/raw" / name)


def test_gzipped_files_of_a_directory_are_unpacked(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "theirs", PACKED)
    prepare_mnist(tmp_path / "made", str(source), [])
    assert_made(tmp_path / "made")
    assert not any(path.is_symlink() for path in (tmp_path / "made").rglob("*"))


def test_plain_and_gzipped_files_may_be_mixed(tmp_path: Path) -> None:
    packed = [name for name in PACKED if name.startswith("t10k")]
    plain = [name for name in FILES if name.startswith("train")]
    source = lay_out(tmp_path / "theirs", {n: PACKED[n] for n in packed} | {n: FILES[n] for n in plain})
    prepare_mnist(tmp_path / "made", str(source), [])
    assert_made(tmp_path / "made")
    links = [path.name for path in (tmp_path / "made/MNIST/raw").iterdir() if path.is_symlink()]
    assert sorted(links) == sorted(plain)


def test_a_data_set_describes_itself(tmp_path: Path) -> None:
    prepare_mnist(tmp_path / "made", str(lay_out(tmp_path / "theirs", PACKED)), [])
    found = describe(tmp_path / "made")
    assert found["classes"] == [str(digit) for digit in range(10)]
    assert found["image_shape"] == [1, 28, 28]
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        labels = ARRAYS[f"{prefix}-labels-idx1-ubyte"].tolist()
        assert found["counts"][split] == [labels.count(digit) for digit in range(10)]
    contents = b"".join(array.tobytes() for array in ARRAYS.values())
    assert found["sha256"] == hashlib.sha256(contents).hexdigest()


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({}, "train-images-idx3-ubyte is missing"),
        ({n: c for n, c in FILES.items() if n != LABELS}, "t10k-labels-idx1-ubyte is missing"),
        (PACKED | {f"{IMAGES}.gz": PACKED[f"{IMAGES}.gz"][:-500]}, f"{IMAGES}.gz is truncated"),
        (PACKED | {f"{IMAGES}.gz": PACKED[f"{IMAGES}.gz"][:5]}, f"{IMAGES}.gz is truncated"),
        (PACKED | {f"{IMAGES}.gz": flipped(PACKED[f"{IMAGES}.gz"], 400)}, f"{IMAGES}.gz is truncated"),
        (PACKED | {f"{IMAGES}.gz": b""}, IMAGES),
        (PACKED | {f"{IMAGES}.gz": b"<html>404</html>"}, f"{IMAGES}.gz is truncated or altered"),
        (PACKED | {f"{LABELS}.gz": gzip.compress(FILES[LABELS][:-1])}, LABELS),
        (FILES | {LABELS: FILES[LABELS][:-1]}, LABELS),
        (FILES | {IMAGES: FILES[IMAGES] + b"x"}, IMAGES),
        (FILES | {LABELS: FILES["train-labels-idx1-ubyte"]}, "5 images, but 12 labels"),
        (FILES | {LABELS: FILES["t10k-images-idx3-ubyte"]}, "t10k"),
        (FILES | {n: idx(ARRAYS[n][:0]) for n in FILES if "t10k" in n}, "0 images"),
    ],
)
def test_a_faulty_directory_is_reported_and_nothing_is_left(
    tmp_path: Path, files: dict[str, bytes], fault: str
) -> None:
    source = lay_out(tmp_path / "theirs", files)
    with pytest.raises(UserError) as error:
        prepare_mnist(tmp_path / "made", str(source), [], KEY)
    assert fault in str(error.value)
    message = str(error.value)
    assert str(source) in message or KEY in message, f"names no file or key that the user has: {message}"
    assert list((tmp_path / "made").rglob("*")) == []


@pytest.mark.parametrize("place", ["nowhere", "a-file"])
def test_a_source_that_is_no_directory_is_reported(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(UserError, match=f"{KEY}.*{place}.*MNIST/raw"):
        prepare_mnist(tmp_path / "made", str(tmp_path / place), [], KEY)
    assert list((tmp_path / "made").rglob("*")) == []


def test_no_flipped_byte_of_a_gzipped_file_goes_unnoticed(tmp_path: Path) -> None:
    content = PACKED[f"{LABELS}.gz"]
    source = lay_out(tmp_path / "theirs", PACKED)
    for place in range(len(content)):
        (source / "MNIST/raw" / f"{LABELS}.gz").write_bytes(flipped(content, place))
        try:
            prepare_mnist(tmp_path / "made", str(source), [])
        except UserError:
            continue
        assert place < 10, "beyond gzip's own header"
        assert_made(tmp_path / "made")


def test_a_fault_keeps_the_data_set_made_before(tmp_path: Path) -> None:
    prepare_mnist(tmp_path / "made", str(lay_out(tmp_path / "good", PACKED)), [])
    bad = lay_out(tmp_path / "bad", PACKED | {f"{LABELS}.gz": b"bad"})
    with pytest.raises(UserError):
        prepare_mnist(tmp_path / "made", str(bad), [])
    assert_made(tmp_path / "made")


@pytest.mark.parametrize("files", [FILES, PACKED], ids=["plain", "gzipped"])
def test_a_directory_made_from_itself_loses_nothing(tmp_path: Path, files: dict[str, bytes]) -> None:
    folder = lay_out(tmp_path / "mine", files)
    try:
        prepare_mnist(folder, str(folder), [], KEY)
    except UserError as error:
        assert KEY in str(error)
    for name, content in files.items():
        assert (folder / "MNIST/raw" / name).read_bytes() == content


def test_mnist_itself(tmp_path: Path, mnist: Path) -> None:
    prepare_mnist(tmp_path, str(mnist), [])
    assert {split: sum(counts) for split, counts in describe(tmp_path)["counts"].items()} == {
        "train": 60000,
        "test": 10000,
    }
    content = (tmp_path / "MNIST/raw/train-images-idx3-ubyte").read_bytes()
    assert hashlib.md5(content).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"


# A download


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path, promising as many bytes as `promised` says, else as many as there are."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.promised: dict[str, int] = {}
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers a GET from the server's files."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.promised.get(self.path, len(content))))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that has ARRAYS under /good/; torchvision knows their checksums and no mirrors of its own."""
    from torchvision.datasets import MNIST  # noqa: PLC0415  seconds to import

    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in PACKED.items()]
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(MNIST, "mirrors", [])
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(datasets.time, "sleep", lambda seconds: None)
    timeout = socket.getdefaulttimeout()
    with Server() as server:
        server.files = {f"/good/{name}": content for name, content in PACKED.items()}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    socket.setdefaulttimeout(timeout)


def on_waiting(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[float]:
    """Call `act` whenever the download waits for its next round; give the waits."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        act()

    monkeypatch.setattr(datasets.time, "sleep", sleep)
    return waits


@pytest.mark.parametrize("slash", ["", "/"])
def test_download(server: Server, tmp_path: Path, slash: str) -> None:
    prepare_mnist(tmp_path, "download", [f"{server.address}/good{slash}"])
    assert_made(tmp_path)
    assert describe(tmp_path)["source"] == "download"


def test_torchvisions_own_mirrors_come_last(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST  # noqa: PLC0415

    monkeypatch.setattr(MNIST, "mirrors", [f"{server.address}/good/"])
    prepare_mnist(tmp_path, "download", [f"{server.address}/none"])
    assert_made(tmp_path)
    assert server.asked[0].startswith("/none/")


def test_a_second_mirror_serves_what_the_first_lacks(server: Server, tmp_path: Path) -> None:
    prepare_mnist(tmp_path, "download", [f"{server.address}/none/", f"{server.address}/good/"])
    assert_made(tmp_path)


@pytest.mark.parametrize(
    "content",
    [flipped(PACKED[f"{IMAGES}.gz"], 400), b"<html>Please log in</html>", b"", PACKED[f"{LABELS}.gz"]],
    ids=["flipped", "a page", "empty", "another file"],
)
def test_a_second_mirror_serves_what_the_first_has_corrupted(
    server: Server, tmp_path: Path, content: bytes
) -> None:
    server.files[f"/bad/{IMAGES}.gz"] = content
    prepare_mnist(tmp_path, "download", [f"{server.address}/bad/", f"{server.address}/good/"])
    assert_made(tmp_path)


def test_a_truncated_download_is_tried_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/good/{IMAGES}.gz"
    whole = server.files[path]
    server.files[path], server.promised[path] = whole[:1000], len(whole)
    waits = on_waiting(monkeypatch, lambda: server.files.update({path: whole}))
    prepare_mnist(tmp_path, "download", [f"{server.address}/good/"])
    assert_made(tmp_path)
    assert len(waits) == 1, "mended while it waited once"


def test_a_download_that_fails_everywhere_says_where_and_what_to_do(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = on_waiting(monkeypatch, lambda: None)
    server.files = {f"/bad/{name}": b"bad" for name in PACKED}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{closed.getsockname()[1]}"
    mirrors = [f"{server.address}/none/", f"{server.address}/bad/", f"{refusing}/"]
    with pytest.raises(UserError) as error:
        prepare_mnist(tmp_path / "made", "download", mirrors, KEY)
    message = str(error.value)
    assert message.startswith(f"{KEY}: ")
    for mirror, fault in zip(mirrors, ("404", "corrupted", "refused"), strict=True):
        assert [fault in line for line in message.splitlines() if f"{mirror}{IMAGES}.gz" in line] == [True]
    assert "mirrors" in message
    assert "directory" in message
    assert list((tmp_path / "made").rglob("*")) == []
    assert len(waits) == 2
    assert waits == sorted(waits)


def test_a_later_file_that_fails_leaves_nothing_of_the_earlier_ones(server: Server, tmp_path: Path) -> None:
    del server.files[f"/good/{LABELS}.gz"]
    with pytest.raises(UserError, match=LABELS):
        prepare_mnist(tmp_path / "made", "download", [f"{server.address}/good/"], KEY)
    assert list((tmp_path / "made").rglob("*")) == []


def test_a_server_that_hangs_up_is_reported(server: Server, tmp_path: Path) -> None:
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
            prepare_mnist(tmp_path / "made", "download", [address], KEY)
        stop.set()
        socket.create_connection(rude.getsockname()).close()
        thread.join()


def test_a_server_that_never_answers_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(UserError, match=f"{address}.*timed out"):
            prepare_mnist(tmp_path / "made", "download", [address], KEY)
    assert list((tmp_path / "made").rglob("*")) == []

"""Archives that would write outside their folder, or too much, are refused."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from convatlas import UserError, unpacking
from convatlas.unpacking import unpack_gzip, unpack_tar


def write_archive(folder: Path, **members: tuple[bytes, str]) -> Path:
    """Write an archive with a regular file, and a member `name` of a type that links to a target."""
    path = folder / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        regular = tarfile.TarInfo("images/a.jpg")
        regular.size = 3
        archive.addfile(regular, io.BytesIO(b"abc"))
        for name, (kind, target) in members.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return path


@pytest.mark.parametrize(
    ("name", "kind", "target", "message"),
    [
        ("/etc/convatlas", tarfile.REGTYPE, "", "would lie outside"),
        ("../outside", tarfile.REGTYPE, "", "would lie outside"),
        ("images/../../outside", tarfile.REGTYPE, "", "would lie outside"),
        ("link", tarfile.SYMTYPE, "/etc/passwd", "is a link"),
        ("link", tarfile.SYMTYPE, "images/a.jpg", "is a link"),
        ("hard", tarfile.LNKTYPE, "images/a.jpg", "is a link"),
        ("zero", tarfile.CHRTYPE, "", "is a device or FIFO"),
        ("disk", tarfile.BLKTYPE, "", "is a device or FIFO"),
        ("pipe", tarfile.FIFOTYPE, "", "is a device or FIFO"),
    ],
)
def test_a_hostile_member_is_refused(
    tmp_path: Path, name: str, kind: bytes, target: str, message: str
) -> None:
    archive, folder = write_archive(tmp_path, **{name: (kind, target)}), tmp_path / "in/unpacked"
    with pytest.raises(UserError, match=message):
        unpack_tar(archive, folder)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"archive.tar.gz", "in/unpacked/images/a.jpg"}


def test_an_archive_of_files_is_unpacked(tmp_path: Path) -> None:
    unpack_tar(write_archive(tmp_path), tmp_path / "unpacked")
    assert (tmp_path / "unpacked/images/a.jpg").read_bytes() == b"abc"


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_BYTES", 1_000_000)
    large = tmp_path / "large.tar.gz"
    with tarfile.open(large, "w:gz") as archive:
        for name in "ab":
            member = tarfile.TarInfo(name)
            member.size = 600_000
            archive.addfile(member, io.BytesIO(bytes(600_000)))
    with pytest.raises(UserError, match=r"unpacks to more than 0.001 GB"):
        unpack_tar(large, tmp_path / "unpacked")
    (tmp_path / "large.gz").write_bytes(gzip.compress(bytes(2_000_000)))
    with pytest.raises(UserError, match=r"unpacks to more than 0.001 GB"):
        unpack_gzip(tmp_path / "large.gz", tmp_path / "large")


@pytest.mark.parametrize("keep", [0, 5, 60, -20])
def test_a_truncated_archive_is_named(tmp_path: Path, keep: int) -> None:
    archive = write_archive(tmp_path)
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"archive\.tar\.gz is truncated or altered"):
        unpack_tar(archive, tmp_path / "unpacked")

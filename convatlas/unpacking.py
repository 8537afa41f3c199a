"""Archives are unpacked into a folder of their own, up to a size; what would leave the folder is refused."""

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from convatlas import UserError

MAX_BYTES = 20_000_000_000  # of what is unpacked; Oxford-IIIT Pet has 0.8 GB
MAX_MEMBERS = 10_000_000
CHUNK = 1 << 20  # bytes


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack a tar archive, compressed or not.

    Args:
        archive: The archive.
        folder: The folder to unpack into.

    Raises:
        UserError: The archive is damaged, too large when it is unpacked, or has a member that is no regular
            file or folder, or that would lie outside the folder.
    """
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter=_make_member_filter(archive))
            while packed.fileobj and packed.fileobj.read(CHUNK):
                pass  # up to the checksum at the end
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise UserError(f"{archive} is truncated or altered ({error}); delete it and run again") from error


def _make_member_filter(archive: Path) -> Callable[[tarfile.TarInfo, str], tarfile.TarInfo | None]:
    """Return a filter for `extractall` that checks each member, and adds their sizes up."""
    sizes = [0, 0]  # members, bytes

    def check(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{archive}: the member {member.name!r} would lie outside the folder; refused")
        if not (member.isreg() or member.isdir()):
            kind = "a link" if member.issym() or member.islnk() else "a device or FIFO"
            raise UserError(f"{archive}: the member {member.name!r} is {kind}, not a file; refused")
        sizes[0] += 1
        sizes[1] += member.size
        if sizes[0] > MAX_MEMBERS or sizes[1] > MAX_BYTES:
            raise UserError(
                f"{archive}: unpacks to more than {MAX_BYTES / 1e9:g} GB or {MAX_MEMBERS:,} files; refused"
            )
        return tarfile.data_filter(member, folder)

    return check


def unpack_gzip(archive: Path, target: Path) -> None:
    """Unpack a gzipped file.

    Args:
        archive: The archive.
        target: The file to write.

    Raises:
        UserError: The archive is damaged, or too large when it is unpacked.
    """
    size = 0
    try:
        with gzip.open(archive) as packed, target.open("wb") as plain:
            while chunk := packed.read(CHUNK):
                size += len(chunk)
                if size > MAX_BYTES:
                    raise UserError(f"{archive}: unpacks to more than {MAX_BYTES / 1e9:g} GB; refused")
                plain.write(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{archive} is truncated or altered: {error}") from error

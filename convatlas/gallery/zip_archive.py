"""The gallery as a zip archive."""

import shutil
import zipfile
from pathlib import Path

from convatlas.files import atomic_write

TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # of every file, so that the same site gives the same bytes
COMPRESSED_SUFFIXES = frozenset({".png", ".webp", ".jpg", ".npz", ".safetensors", ".pdf"})
COPY_BYTES = 1 << 20  # at a time


def write_zip(site: Path, path: Path) -> None:
    """Write a zip of a site; the same site gives the same bytes.

    Args:
        site: The folder of the site, whose name is that of the folder in the archive.
        path: The zip to write.
    """
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for file in sorted(file for file in site.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(f"{site.name}/{file.relative_to(site).as_posix()}", TIMESTAMP)
            entry.external_attr = 0o644 << 16
            is_compressed = file.suffix in COMPRESSED_SUFFIXES
            entry.compress_type = zipfile.ZIP_STORED if is_compressed else zipfile.ZIP_DEFLATED
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, COPY_BYTES)

"""The members of zip archives as files, unpacked while they are read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import BinaryIO

from errors import SourceError
from etl.sources.disk import File, LocalFile, buffered, told


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive (`etl.sources.disk.File`).

    Args:
        archive: The archive.
        inside: The member's path in it.
        version: Its size (bytes, unpacked) and its checksum.
    """

    archive: File
    inside: str
    version: tuple[int, int]

    @property
    def name(self) -> str:
        """Archive and member: `inbox/2024.zip/january.csv`."""
        return f"{self.archive.name}/{self.inside}"

    def open(self) -> _Unpacked:
        """Its bytes, for reading only."""
        return _Unpacked(_bytes(self.archive), self.inside)

    def check_unchanged(self) -> None:
        """It is, if the archive is."""
        self.archive.check_unchanged()


def is_archive(file: File) -> bool:
    """Whether a file's name says that it is a zip archive."""
    return file.name.lower().endswith(".zip")


def members(archive: File, pattern: str) -> Sequence[Member]:
    """The members of an archive whose path or last name matches a glob, sorted.

    Raises:
        SourceError: It cannot be read, none matches, or one is encrypted.
    """
    with told(archive.name), _bytes(archive) as content, zipfile.ZipFile(content) as opened:
        found = {info.filename: info for info in opened.infolist() if _is_wanted(info, pattern)}
    if not found:
        raise SourceError(f"{archive.name}: holds no file like {pattern!r}", hint="check `members`")
    for name, info in found.items():
        if info.flag_bits & 1:
            raise SourceError(f"{archive.name}/{name}: is encrypted", hint="unpack it with its password first")
    return [Member(archive, name, (info.file_size, info.CRC)) for name, info in sorted(found.items())]


def _is_wanted(info: zipfile.ZipInfo, pattern: str) -> bool:
    last = info.filename.rpartition("/")[2]
    if info.is_dir() or last.startswith(".") or info.filename.startswith("__MACOSX/"):
        return False  # what Finder adds
    return fnmatchcase(info.filename, pattern) or fnmatchcase(last, pattern)


def _bytes(archive: File) -> BinaryIO:
    """The archive as Python reads it: Arrow's files tell of a wrong place in another way than `zipfile` expects."""
    return archive.path.open("rb") if isinstance(archive, LocalFile) else buffered(archive.open())


class _Unpacked(io.RawIOBase):
    """A member's bytes; closes the archive with itself."""

    def __init__(self, archive: BinaryIO, inside: str) -> None:
        super().__init__()
        self._archive = archive
        self._bytes = zipfile.ZipFile(archive).open(inside)  # noqa: SIM115  (closed with this)

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._bytes.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = self._bytes.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._archive.close()
        super().close()

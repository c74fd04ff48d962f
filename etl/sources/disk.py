"""Files as sources read them: found on disk, decompressed, decoded; and what can be wrong with them, in words."""

from __future__ import annotations

import errno
import glob
import io
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import pyarrow as pa

from errors import IntegrationError, SourceError
from etl.embedded import database_file
from etl.pipeline import COMPRESSIONS
from settings import get_settings

_BOM = b"\xef\xbb\xbf"
_BUFFER = 4 << 20  # so much is asked for at a time from what answers slowly
_HINTS = {
    errno.ENOENT: "check `path`; a relative one starts from the project's root (PIVOTAL_ROOT)",
    errno.EACCES: "the user that reads needs the right to",
    errno.EISDIR: "a folder; name the files in it: folder/*.csv",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


class File(Protocol):
    """A file as it was when the reading began: on disk, in a store, or in an archive.

    Args:
        name: Its path as people see it and as the state keeps it.
        version: Its size (bytes), and what else tells whether its content is the same.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    @property
    def version(self) -> tuple[int, int | str]:
        """See above."""
        ...

    def open(self) -> Any:  # noqa: ANN401  (a binary file, Python's or Arrow's)
        """Its bytes, for reading and seeking."""
        ...

    def check_unchanged(self) -> None:
        """Makes sure that it is still what it was.

        Raises:
            SourceError: It is not.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on disk.

    Args:
        path: Where it is.
        name: Its path: relative to the project where it is inside.
        version: Its size (bytes) and time of modification (nanoseconds since 1970).
    """

    path: Path
    name: str
    version: tuple[int, int]

    @classmethod
    def at(cls, path: Path) -> LocalFile:
        """The file at a path, as it is now."""
        root = get_settings().root
        name = str(path.relative_to(root) if path.is_relative_to(root) else path)
        with told(name):
            found = path.stat()
        if path.is_dir():
            raise SourceError(f"{name}: is a folder", hint=f"name the files in it: {name}/*.csv")
        return cls(path, name, (found.st_size, found.st_mtime_ns))

    def open(self) -> pa.NativeFile:
        """Its bytes."""
        return pa.OSFile(str(self.path))

    def check_unchanged(self) -> None:
        """Looks at it again."""
        if LocalFile.at(self.path) != self:
            raise changed(self.name)


def changed(name: str) -> SourceError:
    """What there is to say of a file that is not the same to the end of its reading."""
    return SourceError(
        f"{name}: has changed while it was read",
        hint="move files in when they are complete, and run again",
        retryable=True,
    )


def buffered(content: io.RawIOBase) -> io.BufferedReader:
    """For reading in small pieces what takes long to answer: many of them in one go."""
    return io.BufferedReader(content, _BUFFER)


@contextmanager
def on_disk(file: File) -> Iterator[Path]:
    """A path for libraries that want one: the file's own, or that of a copy for as long as it is needed."""
    if isinstance(file, LocalFile):
        yield file.path
        return
    with tempfile.NamedTemporaryFile() as copy:
        with told(file.name), closing(file.open()) as content:
            shutil.copyfileobj(content, copy, _BUFFER)
        copy.flush()
        yield Path(copy.name)


def find(pattern: str) -> list[LocalFile]:
    """The files of a path or a glob, sorted by path; `**` goes into folders.

    Raises:
        SourceError: A path without a wildcard leads to no file, or the folder of a glob is not there.
    """
    with told(pattern):
        return _find(pattern)


def _find(pattern: str) -> list[LocalFile]:
    path = get_settings().path(pattern)
    if path.exists() or not glob.has_magic(pattern):
        return [LocalFile.at(path)]
    folder = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
    if not folder.is_dir():
        raise SourceError(f"{pattern}: there is no folder {folder}", hint=_HINTS[errno.ENOENT])
    next(folder.iterdir(), None)  # a folder that may not be listed looks empty to glob
    found = map(Path, sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207  (Path.glob takes no absolute pattern)
    return [LocalFile.at(file) for file in found if file.is_file()]


def existing_database_file(url: str) -> Path:
    """The file of an embedded database (`etl.embedded.database_file`), which must be there.

    Raises:
        SourceError: The URL names no file, or it is not there.
    """
    path = database_file(url, SourceError)
    if not path.is_file():
        raise SourceError(f"{url}: there is no such file", hint=f"looked for {path}")
    return path


class Stream:
    """The bytes of a file as UTF-8, decompressed, without a byte-order mark: what Arrow and JSON parsers read from.

    Args:
        file: The file.
        encoding: What its text is encoded in.
    """

    closed = False

    def __init__(self, file: File, encoding: str = "utf-8") -> None:
        self.taken = 0
        self._file = file
        compression = COMPRESSIONS.get(PurePosixPath(file.name.lower()).suffix)
        with told(file.name):
            raw = file.open()
            self._raw = raw if isinstance(raw, pa.NativeFile) else pa.PythonFile(buffered(raw), mode="r")
            bytes_ = pa.CompressedInputStream(self._raw, compression) if compression else self._raw
            self._bytes = bytes_ if _is_utf8(encoding) else pa.transcoding_input_stream(bytes_, encoding, "utf-8")

    def read(self, size: int = -1) -> bytes:
        """The next bytes; `size` at most, none at the end.

        Raises:
            SourceError: They cannot be decompressed or decoded, or are binary.
        """
        with told(self._file.name):
            chunk: bytes = self._bytes.read(size if size >= 0 else None)
        if b"\0" in chunk:
            raise SourceError(
                f"{self._file.name}: holds a NUL byte near byte {self.taken + chunk.index(0)}, so it is no text",
                hint="it may be binary, or UTF-16 (say `encoding: utf-16`)",
            )
        if not self.taken:
            chunk = chunk.removeprefix(_BOM)
        self.taken += len(chunk)
        return chunk

    @property
    def position(self) -> int:
        """How many bytes of the file itself have been read."""
        return int(self._raw.tell()) if not self._raw.closed else self._file.version[0]

    def readable(self) -> bool:
        """Arrow asks."""
        return True

    def close(self) -> None:
        """Frees the file."""
        self.closed = True
        self._bytes.close()
        self._raw.close()


@contextmanager
def told(name: str) -> Iterator[None]:
    """Turns what can go wrong with a file inside into a `SourceError`."""
    try:
        yield
    except UnicodeError as error:
        raise _not_decoded(name, str(error)) from None
    except pa.ArrowInvalid as error:
        raise _refused(name, str(error)) from None
    except IntegrationError as error:
        if error.code == "PreconditionFailed":
            raise changed(name) from None
        raise SourceError(error.message, hint=error.hint, retryable=error.retryable) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise SourceError(f"{name}: cannot be unpacked: {error}", hint="fetch the archive again") from None
    except OSError as error:
        reason = error.strerror or str(error)
        hint = _HINTS.get(error.errno or 0)
        if "Truncated compressed" in reason:
            reason, hint = "is cut off: its compressed data has no end", "fetch the file again"
        elif "inflate" in reason or "bz2" in reason.lower() or "zstd" in reason.lower():
            reason, hint = (
                f"cannot be decompressed ({reason})",
                "its name says that it is compressed; it is not, or it is damaged",
            )
        raise SourceError(f"{name}: {reason}", hint=hint) from None


def _refused(name: str, message: str) -> SourceError:
    if "UTF8" in message or "utf-8" in message:
        return _not_decoded(name, message)
    if "straddling" in message or "block size" in message:
        return SourceError(
            f"{name}: a record is longer than 8 MB", hint="is a quote not closed, or the line end a strange one?"
        )
    return SourceError(f"{name}: {message.splitlines()[0]}")


def _not_decoded(name: str, message: str) -> SourceError:
    return SourceError(
        f"{name}: cannot be decoded: {message}",
        hint="say which encoding it has: `encoding: latin-1`, cp1252, utf-16, ...",
    )


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in {"utf-8", "utf8", "utf-8-sig"}

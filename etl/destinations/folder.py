"""A folder whose content changes all at once (`etl.destinations.store`).

Its path is a symbolic link to a version, a folder that never changes; versions are in `.name/` beside it. A change
builds the next version, with hard links to the files that stay, and then renames a new link over the old one. That
one rename publishes everything; killed before or after it, the folder is whole, and the next change removes what was
left. Readers that list the folder see the files of one version, each of them whole.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa
from filelock import FileLock, Timeout

from errors import DestinationError
from etl.destinations.disk import disk_errors
from etl.destinations.store import Sink
from settings import get_settings

T = TypeVar("T")
_UNFINISHED = ".part"
"""What new files are called until they are published, so that nobody who looks into `.name/` takes them for data."""


class Folder:
    """The folder at a path (`Store`).

    Args:
        path: Where readers find it. Nothing needs to be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.versions = path.parent / f".{path.name}"

    def trouble(self) -> AbstractContextManager[None]:
        """See `Store.trouble`."""
        return disk_errors(self.path)

    def current(self) -> _Version:
        """The version that readers see; one without files before the first.

        Raises:
            DestinationError: Something else is at the path.
        """
        if self.path.is_symlink() and self.path.readlink().parent == Path(self.versions.name):
            return _Version(self.versions / self.path.readlink().name)
        if self.path.is_symlink() or (self.path.exists() and any(self.path.iterdir())):
            raise DestinationError(
                f"{self.path}: something is there that no pipeline wrote",
                hint="move it away, or name another folder",
            )
        return _Version(None)

    def read(self, read: Callable[[_Version], T]) -> T:
        """See `Store.read`."""
        while True:
            version = self.current()
            try:
                return read(version)
            except FileNotFoundError:
                if version.path == self.current().path:
                    raise

    def change(self) -> _Change:
        """See `Store.change`."""
        return _Change(self)


class _Version:
    """A version (`Version`).

    Args:
        path: Where its files are; None if it has none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @property
    def names(self) -> list[str]:
        """See `Version.names`."""
        if self.path is None:
            return []
        if not self.path.is_dir():
            raise FileNotFoundError(self.path)
        return sorted(str(file.relative_to(self.path)) for file in self.path.rglob("*") if file.is_file())

    def open(self, name: str) -> BinaryIO:
        """See `Version.open`."""
        return self.file(name).open("rb")

    def file(self, name: str) -> Path:
        """Where a file is."""
        if self.path is None:
            raise FileNotFoundError(name)
        return self.path / name


class _Change:
    """The next version of a folder (`Change`)."""

    most_open = 200

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._created: dict[str, Sink] = {}
        self._stack = ExitStack()
        folder.versions.mkdir(parents=True, exist_ok=True)
        with self._stack:
            self._stack.enter_context(self._lock())
            self.base = folder.current()
            self._sweep()
            self._path = folder.versions / uuid.uuid4().hex
            self._path.mkdir()
            self._stack.callback(self._sweep)
            self._stack.callback(self._close_files)
            self._stack = self._stack.pop_all()

    def create(self, name: str) -> Sink:
        """See `Change.create`."""
        path = self._path / (name + _UNFINISHED)
        path.parent.mkdir(parents=True, exist_ok=True)
        sink: Sink = pa.OSFile(str(path), "wb")
        self._created[name] = sink
        return sink

    def publish(self, stays: Callable[[str], bool]) -> None:
        """See `Change.publish`; the version is on disk when this returns."""
        for name in self._created:
            (self._path / (name + _UNFINISHED)).rename(self._path / name)
            _sync(self._path / name)
        for name in self.base.names:
            if name not in self._created and stays(name):
                (self._path / name).parent.mkdir(parents=True, exist_ok=True)
                os.link(self.base.file(name), self._path / name)
        for folder in (*(path for path in self._path.rglob("*") if path.is_dir()), self._path, self._path.parent):
            _sync(folder)
        self._show()

    def close(self) -> None:
        """Removes what readers do not see: the version before, or this one if it was not published."""
        self._stack.close()

    def _show(self) -> None:
        link = self._folder.versions / "next"
        link.symlink_to(Path(self._folder.versions.name, self._path.name))
        if self._folder.path.is_dir() and not self._folder.path.is_symlink():
            self._folder.path.rmdir()  # an empty one, made by hand
        link.replace(self._folder.path)
        _sync(self._folder.path.parent)

    def _close_files(self) -> None:
        for sink in self._created.values():
            sink.close()

    def _lock(self) -> FileLock:
        timeout = get_settings().lock_timeout
        lock = FileLock(self._folder.versions / "lock", timeout=timeout)
        try:
            lock.acquire()
        except Timeout:
            raise busy(self._folder.path) from None
        return lock

    def _sweep(self) -> None:
        current = self._folder.current().path
        keep = {"lock", current.name if current else ""}
        for left in self._folder.versions.iterdir():
            if left.name not in keep:
                left.unlink() if left.is_symlink() else shutil.rmtree(left)


def busy(place: Path | str) -> DestinationError:
    """The error that another change goes on for too long."""
    return DestinationError(
        f"{place}: another run writes there (waited {get_settings().lock_timeout:g} s)",
        hint="wait for it to end, or raise PIVOTAL_LOCK_TIMEOUT",
        retryable=True,
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

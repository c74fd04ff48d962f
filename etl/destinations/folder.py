"""A folder whose content changes all at once.

Its path is a symbolic link to a version, a folder that never changes; versions are in `.name/` beside it. A change
builds the next version, with hard links to the files that stay, and then renames a new link over the old one. That
one rename publishes everything; killed before or after it, the folder is whole, and the next change removes what was
left. Readers that list the folder see the files of one version, each of them whole.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from errors import DestinationError
from settings import get_settings

T = TypeVar("T")


class Folder:
    """The folder at a path.

    Args:
        path: Where readers find it. Nothing needs to be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.versions = path.parent / f".{path.name}"

    def current(self) -> Path | None:
        """The version that readers see; None before the first.

        Raises:
            DestinationError: Something else is at the path.
        """
        if self.path.is_symlink() and self.path.readlink().parent == Path(self.versions.name):
            return self.versions / self.path.readlink().name
        if self.path.is_symlink() or (self.path.exists() and any(self.path.iterdir())):
            raise DestinationError(
                f"{self.path}: something is there that no pipeline wrote",
                hint="move it away, or name another folder",
            )
        return None

    def read(self, read: Callable[[Path], T]) -> T | None:
        """What `read` makes of the current version, though it may be replaced meanwhile; None before the first."""
        while version := self.current():
            try:
                return read(version)
            except FileNotFoundError:
                if version == self.current():
                    raise
        return None


class Change:
    """The next version of a folder, being built. One at a time; close it in the end.

    Args:
        folder: The folder.

    Raises:
        DestinationError: Another change goes on for longer than `PIVOTAL_LOCK_TIMEOUT`, or something that no pipeline
            wrote is at the path.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._stack = ExitStack()
        folder.versions.mkdir(parents=True, exist_ok=True)
        with self._stack:
            self._stack.enter_context(self._lock())
            self.base = folder.current()
            self._sweep()
            self.version = folder.versions / uuid.uuid4().hex
            self.version.mkdir()
            self._stack.callback(self._sweep)
            self._stack = self._stack.pop_all()

    def keep(self, wanted: Callable[[Path], bool]) -> None:
        """Takes over files of the version before.

        Args:
            wanted: Tells of a file, by its path inside the folder, whether it stays.
        """
        for file in _files(self.base) if self.base else ():
            inside = file.relative_to(self.base or file)
            if wanted(inside):
                (self.version / inside).parent.mkdir(parents=True, exist_ok=True)
                os.link(file, self.version / inside)

    def publish(self) -> None:
        """Shows readers the new version; it is on disk when this returns."""
        for file in _files(self.version):
            if file.stat().st_nlink == 1:
                _sync(file)
        for folder in {file.parent for file in _files(self.version)} | {self.version, self.version.parent}:
            _sync(folder)
        link = self._folder.versions / "next"
        link.symlink_to(Path(self._folder.versions.name, self.version.name))
        if self._folder.path.is_dir() and not self._folder.path.is_symlink():
            self._folder.path.rmdir()  # an empty one, made by hand
        link.replace(self._folder.path)
        _sync(self._folder.path.parent)

    def close(self) -> None:
        """Removes what readers do not see: the version before, or this one if it was not published."""
        self._stack.close()

    def _lock(self) -> FileLock:
        timeout = get_settings().lock_timeout
        lock = FileLock(self._folder.versions / "lock", timeout=timeout)
        try:
            lock.acquire()
        except Timeout:
            raise DestinationError(
                f"{self._folder.path}: another run writes there (waited {timeout:g} s)",
                hint="wait for it to end, or raise PIVOTAL_LOCK_TIMEOUT",
                retryable=True,
            ) from None
        return lock

    def _sweep(self) -> None:
        keep = {"lock", current.name if (current := self._folder.current()) else ""}
        for left in self._folder.versions.iterdir():
            if left.name not in keep:
                left.unlink() if left.is_symlink() else shutil.rmtree(left)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

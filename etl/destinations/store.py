"""A place for files whose content changes all at once: the protocol of its kinds, a folder and a bucket."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol, TypeVar

T = TypeVar("T")


class Sink(Protocol):
    """A file that is being written."""

    closed: bool

    def write(self, data: bytes, /) -> object:
        """Takes bytes."""
        ...

    def tell(self) -> int:
        """How many bytes it was given."""
        ...

    def flush(self) -> None:
        """Whoever writes may ask; nobody reads before the publishing."""
        ...

    def close(self) -> None:
        """The file is complete."""
        ...


class Version(Protocol):
    """What readers see at one time; it does not change."""

    @property
    def names(self) -> list[str]:
        """Its files: their paths inside the place, sorted."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file's content.

        Raises:
            FileNotFoundError: The version is not the current one any more.
        """
        ...


class Change(Protocol):
    """The next version, being built. One at a time; close it in the end.

    Args:
        most_open: How many files may be open for writing.
    """

    most_open: int

    @property
    def base(self) -> Version:
        """The version that it starts from."""
        ...

    def create(self, name: str) -> Sink:
        """A new file; it takes the place of one of that name. Nobody sees it before `publish`."""
        ...

    def publish(self, stays: Callable[[str], bool]) -> None:
        """Shows readers the new version: the new files, and those of the base that stay."""
        ...

    def close(self) -> None:
        """Forgets files that were not published, finished or not."""
        ...


class Store(Protocol):
    """The place."""

    def trouble(self) -> AbstractContextManager[None]:
        """Turns what its medium raises into a `PivotalError` that says what to do."""
        ...

    def read(self, read: Callable[[Version], T]) -> T:
        """What `read` makes of the current version, though it may be replaced meanwhile."""
        ...

    def change(self) -> Change:
        """Starts a change; waits for the one that goes on.

        Raises:
            DestinationError: That one goes on for too long, or something that no pipeline wrote is at the place.
        """
        ...


def put(change: Change, name: str, content: bytes) -> None:
    """Writes a file whose whole content is known."""
    sink = change.create(name)
    sink.write(content)
    sink.close()

"""`unique`: which values a run has seen, in memory that is bounded however many there are.

A value is told by two 64-bit numbers: a key and, where the key does not hold all of the value, a second hash (two
values are taken for one with a chance of 2^-128). Sorted runs of them stay in memory up to a limit; full ones go to
a temporary file, which disappears with the process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

_RUN = 1 << 20
"""Values that a run holds before it goes to disk, 16 bytes each."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Values:
    """Values of a column."""

    keys: NDArray[np.int64]
    hashes: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, which: slice | Mask | NDArray[np.intp]) -> Values:
        return Values(self.keys[which], self.hashes[which])

    def merged(self, other: Values) -> Values:
        """Both, by key."""
        both = Values(np.concatenate([self.keys, other.keys]), np.concatenate([self.hashes, other.hashes]))
        if not len(self) or self.keys[-1] <= other.keys[0]:
            return both
        return both[np.argsort(both.keys, kind="stable")]

    def among(self, run: Values) -> Mask:
        """Which of the values are in a sorted run."""
        at = np.searchsorted(run.keys, self.keys)
        found = np.zeros(len(self), np.bool_)
        left = np.arange(len(self))
        while left.size:  # more than once only where values share a key
            left = left[at[left] < len(run)]
            left = left[run.keys[at[left]] == self.keys[left]]
            found[left] = run.hashes[at[left]] == self.hashes[left]
            left = left[~found[left]]
            at[left] += 1
        return found


@dataclass(frozen=True, slots=True)
class _Spilled:
    """A run in the file: all keys, then all hashes."""

    low: np.int64
    high: np.int64
    offset: int
    count: int

    def read(self, file: IO[bytes]) -> Values:
        """The run; of the hashes only those are read that are looked at."""
        size = self.count * 8
        keys = np.frombuffer(os.pread(file.fileno(), size, self.offset), np.int64)
        return Values(keys, np.memmap(file, np.uint64, "r", self.offset + size, (self.count,)))


class Seen:
    """The values of one column so far.

    Args:
        run: Values that stay in memory at least before some go to disk.
    """

    def __init__(self, run: int = _RUN) -> None:
        self._run = run
        self._recent: list[Values] = []
        self._spilled: list[_Spilled] = []
        self._file: IO[bytes] | None = None

    def find(self, values: Values) -> Mask:
        """Which of the values are here; `values` are sorted by key."""
        found = np.zeros(len(values), np.bool_)
        for run in self._recent:
            found |= values.among(run)
        for spilled in self._spilled:
            start = int(np.searchsorted(values.keys, spilled.low))
            stop = int(np.searchsorted(values.keys, spilled.high, "right"))
            if start < stop and self._file:
                found[start:stop] |= values[start:stop].among(spilled.read(self._file))
        return found

    def add(self, values: Values) -> None:
        """Takes values that are not here yet; `values` are sorted by key."""
        if not len(values):
            return
        run = values
        while self._recent and len(self._recent[-1]) <= 2 * len(run):
            run = self._recent.pop().merged(run)
        self._recent.append(run)
        if len(run) >= self._run:
            self._spill(self._recent.pop())

    def close(self) -> None:
        """Frees the disk."""
        if self._file:
            self._file.close()

    def _spill(self, run: Values) -> None:
        self._file = self._file or TemporaryFile()  # noqa: SIM115  (closed by `close`)
        offset = self._file.tell()
        self._file.write(run.keys.tobytes())
        self._file.write(run.hashes.tobytes())
        self._file.flush()
        self._spilled.append(_Spilled(run.keys[0], run.keys[-1], offset, len(run)))


@dataclass(frozen=True, slots=True)
class UniqueColumn:
    """The values of some rows in a column that is unique.

    Args:
        seen: What earlier rows of the run have taken.
        values: One value a row.
        present: Which rows have a value: a NULL is no duplicate.
    """

    seen: Seen
    values: Values
    present: Mask


def duplicates(columns: Sequence[UniqueColumn], broken: Mask) -> list[Mask]:
    """Which rows have a value that an earlier row has taken; the others take theirs.

    A row takes its values only if it breaks no rule (`unique` itself included), so that a row in the quarantine
    never stands in the way of a good one.

    Args:
        columns: The columns that are unique.
        broken: Rows that break another rule.

    Returns:
        One mask a column.
    """
    orders = [np.argsort(column.values.keys, kind="stable") for column in columns]
    duplicate = [_found(column, order) for column, order in zip(columns, orders, strict=True)]
    takes = ~np.logical_or.reduce([broken, *duplicate])
    contested = np.logical_or.reduce([_repeated(column, order) for column, order in zip(columns, orders, strict=True)])
    _settle(columns, np.flatnonzero(contested), takes, duplicate)
    for column, order in zip(columns, orders, strict=True):
        column.seen.add(column.values[order[(takes & column.present)[order]]])
    return duplicate


def _found(column: UniqueColumn, order: NDArray[np.intp]) -> Mask:
    found = np.empty(len(order), np.bool_)
    found[order] = column.seen.find(column.values[order])
    return found & column.present


def _repeated(column: UniqueColumn, order: NDArray[np.intp]) -> Mask:
    """Rows whose value (or at least its key) other rows of the batch have, too."""
    order = order[column.present[order]]
    keys = column.values.keys[order]
    same = keys[1:] == keys[:-1]
    repeated = np.zeros(len(column.present), np.bool_)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    return repeated


def _settle(
    columns: Sequence[UniqueColumn], contested: NDArray[np.intp], takes: Mask, duplicate: Sequence[Mask]
) -> None:
    """Goes through the rows that stand in each other's way, in their order."""
    taken: list[set[tuple[int, int]]] = [set() for _ in columns]
    for row in contested.tolist():
        own = [
            (int(column.values.keys[row]), int(column.values.hashes[row])) if column.present[row] else None
            for column in columns
        ]
        for value, others, mask in zip(own, taken, duplicate, strict=True):
            mask[row] |= value in others
        takes[row] &= not any(mask[row] for mask in duplicate)
        if takes[row]:
            for value, others in zip(own, taken, strict=True):
                others.update({value} if value else ())

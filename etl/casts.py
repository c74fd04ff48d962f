"""Whole columns of text, converted by Arrow: a fifth of the cost of converting value by value.

Only where every text of a column converts, and where Arrow's value is certain to be the one of `etl.convert`; it is
Arrow that is the more lenient here and there, and those columns are left to the rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

_SAFE = 2**53 - 1
_FIRST = pa.scalar(date.min)
_COLONS = {10: 0, 16: 1, 19: 2, 23: 2, 26: 2}
"""Characters of a timestamp by ISO 8601 -> how many of them are colons."""


def cast(column: pa.Array, target: str) -> pa.Array | None:
    """A column in a type of `convert`.

    Args:
        column: Texts.
        target: The type, as a pipeline file names it.

    Returns:
        The values; None if there is a text that Arrow cannot convert, or might convert in another way.
    """
    kind, is_certain = _TYPES.get(target) or _decimal(target)
    if kind is None or not pa.types.is_string(column.type):
        return None
    try:
        values = column.cast(kind)
    except pa.ArrowInvalid:
        return None
    return values if is_certain(column, values) else None


def _has_no_hexadecimal(texts: pa.Array, _: pa.Array) -> bool:
    return not _has(texts, b"xX")


def _has_no_exponent(texts: pa.Array, _: pa.Array) -> bool:
    return not _has(texts, b"eE")


def _is_told_from_its_neighbours(_: pa.Array, values: pa.Array) -> bool:
    """No infinity, no NaN, and nothing so large that two integers share a double."""
    largest = pc.max(pc.abs(values)).as_py()
    return largest is None or bool(largest <= _SAFE and pc.all(pc.is_finite(values)).as_py())


def _is_a_boolean(*_: pa.Array) -> bool:
    return True


def _is_after_christ(texts: pa.Array, values: pa.Array) -> bool:
    return len(texts) == texts.null_count or not pc.less(pc.min(values), _FIRST.cast(values.type)).as_py()


def _is_written_out(texts: pa.Array, values: pa.Array) -> bool:
    """Whether all timestamps have one form, with its colons: Arrow takes 1200 for 12:00, and 12 for it, too."""
    if len(texts) == texts.null_count:
        return True
    ends = pc.min_max(pc.binary_length(texts))
    length = ends["min"].as_py()
    if length != ends["max"].as_py() or length not in _COLONS:
        return False
    colons = _COLONS[length] * (len(texts) - texts.null_count)
    return _bytes(texts).count(b":") == colons and _is_after_christ(texts, values)


_Certain = Callable[[pa.Array, pa.Array], bool]

_TYPES: dict[str, tuple[pa.DataType, _Certain]] = {
    "integer": (pa.int64(), _has_no_hexadecimal),
    "bigint": (pa.int64(), _has_no_hexadecimal),
    "number": (pa.float64(), _is_told_from_its_neighbours),
    "boolean": (pa.bool_(), _is_a_boolean),
    "date": (pa.date32(), _is_after_christ),
    "timestamp": (pa.timestamp("us"), _is_written_out),
}


def _decimal(target: str) -> tuple[pa.DataType | None, _Certain]:
    found = re.fullmatch(r"decimal\((\d+),(\d+)\)", target)
    return pa.decimal128(int(found[1]), int(found[2])) if found else None, _has_no_exponent


def _has(texts: pa.Array, characters: bytes) -> bool:
    content = _bytes(texts)
    return any(character in content for character in characters)


def _bytes(texts: pa.Array) -> bytes:
    """What the texts are made of, one after the other."""
    _, offsets, content = texts.buffers()
    if content is None:
        return b""
    ends = pa.Array.from_buffers(pa.int32(), texts.offset + len(texts) + 1, [None, offsets])
    start, stop = ends[texts.offset].as_py(), ends[-1].as_py()
    return bytes(content.slice(start, stop - start).to_pybytes())

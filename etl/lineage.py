"""Which source columns each result column comes from: the rules know it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from etl.expressions import columns
from etl.pipeline import Transform


def column_lineage(transform: Transform, result: Iterable[str]) -> dict[str, list[str]]:
    """Traces the result's columns back through the rules.

    Args:
        transform: The rules. Those that say what values must be change none, so nothing comes from them.
        result: The result's columns, structs laid flat.

    Returns:
        Result column -> source columns, in the order in which its expression names them.
    """
    origin = {new: [old] for old, new in transform.map.items() if old != "*"}
    for name, expression in transform.derive.items():
        used = [source for column in columns(expression) for source in _origin(column, origin)]
        origin[name] = list(dict.fromkeys(used))
    return {column: _origin(column, origin) for column in result}


def _origin(column: str, origin: Mapping[str, Sequence[str]]) -> list[str]:
    """Where a column is from. Expressions spell it in any case; a field of a struct has the struct's name first."""
    alike = [name for name in origin if name.lower() == column.lower()]
    around = [name for name in origin if column.startswith(f"{name}_")]
    found = column if column in origin else alike[0] if alike else max(around, key=len, default=None)
    return list(origin[found]) if found else [column]

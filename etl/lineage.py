"""Which source columns each result column comes from: the rules know it."""

from __future__ import annotations

from collections.abc import Iterable

from etl.expressions import columns
from etl.pipeline import Transform


def column_lineage(transform: Transform, result: Iterable[str]) -> dict[str, list[str]]:
    """Traces the result's columns back through the rules.

    Args:
        transform: The rules.
        result: The result's columns.

    Returns:
        Result column -> source columns, in the order in which its expression names them.
    """
    origin = {new: [old] for old, new in transform.map.items() if old != "*"}
    for name, expression in transform.derive.items():
        used = [source for column in columns(expression) for source in origin.get(column, [column])]
        origin[name] = list(dict.fromkeys(used))
    return {column: origin.get(column, [column]) for column in result}

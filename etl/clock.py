"""The clock that expressions read: it stands still at the start of the run, so every row has the same time.

The engine's own functions would give each batch another time, and a prepared statement is planned again for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

_TYPES = {
    "current_date": "DATE",
    "current_localtime": "TIME",
    "current_localtimestamp": "TIMESTAMP",
    "get_current_time": "TIME WITH TIME ZONE",
    "get_current_timestamp": "TIMESTAMP WITH TIME ZONE",
    "now": "TIMESTAMP WITH TIME ZONE",
    "today": "DATE",
    "transaction_timestamp": "TIMESTAMP WITH TIME ZONE",
}

FUNCTIONS = frozenset(_TYPES)
"""The functions that read the clock and nothing else."""

WORDS = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})
"""What reads it without parentheses."""


def stopped_at(moment: datetime) -> Sequence[str]:
    """Macros that take the place of the engine's functions.

    Args:
        moment: The time that they give.
    """
    utc = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
    clock = [
        f"CREATE MACRO {name}() AS CAST({'TIMESTAMPTZ' if 'ZONE' in kind else 'TIMESTAMP'} '{utc}' AS {kind})"
        for name, kind in _TYPES.items()
    ]
    return [*clock, "CREATE MACRO age(x) AS system.main.age(current_date(), x), (x, y) AS system.main.age(x, y)"]

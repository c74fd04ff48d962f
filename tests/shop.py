"""A shop's database, `shop.db` in a project, as it changes while a test looks on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path


def change(project: Path, sql: str, rows: Iterable[tuple[object, ...]] = ((),)) -> None:
    """Runs a statement for each of the rows; they are what its `?` stand for."""
    with closing(sqlite3.connect(project / "shop.db")) as shop, shop:
        for row in rows:
            shop.execute(sql, row)

"""What a preview tells of a merge: by keys of several columns, of several types, in every warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etl.pipeline import Pipeline
from etl.preview import preview
from etl.run import run_pipeline


def pipeline(url: str, **parts: Any) -> Pipeline:
    declared: dict[str, Any] = {
        "name": "orders",
        "description": "Orders",
        "source": {"type": "file", "path": "orders.csv"},
        "transform": {"convert": {"id": "integer", "at": "timestamptz", "price": "decimal(9,2)"}},
        "destination": {
            "type": "database", "connection": url, "table": "orders", "write": "merge",
            "key": ["id", "region", "price"],
        },
    }  # fmt: skip
    return Pipeline.model_validate(declared | parts)


@pytest.mark.parametrize("database", ["duckdb:///warehouse.duckdb", "sqlite:///warehouse.db", "postgres"])
def test_a_key_of_several_columns_is_looked_up(project: Path, database: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgres" else database
    (project / "orders.csv").write_text("id,region,price,at\n1,eu,1.5,2024-01-01T00:00Z\n1,us,1.5,2024-01-01T00:00Z\n")
    assert [row.outcome for row in preview(pipeline(url), 9)] == ["inserted", "inserted"]
    run_pipeline(pipeline(url))
    (project / "orders.csv").write_text(
        "id,region,price,at\n1,eu,1.50,2024-01-01T00:00Z\n1,us,1.51,2024-01-01T00:00Z\n2,us,1.5,\n1,,1.5,\n"
    )
    assert [row.outcome for row in preview(pipeline(url), 9)] == ["updated", "inserted", "inserted", "inserted"]

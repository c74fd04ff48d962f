"""What a pipeline may say of its files: mistakes are told before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from etl.loader import check


def told(folder: Path, **source: Any) -> list[str]:
    pipeline = {
        "description": "d",
        "source": {"type": "file", **source},
        "destination": {"type": "database", "connection": "sqlite:///o.db", "table": "t", "write": "append"},
    }
    path = folder / "p.yaml"
    path.write_text(yaml.safe_dump(pipeline, sort_keys=False))
    return [f"{problem.message}; {problem.hint}" for problem in check([path])]


@pytest.mark.parametrize(
    ("source", "mistake"),
    [
        ({"path": "a.parquet", "delimiter": ";"}, "`delimiter` with `format: parquet`; leave it out: it is for csv"),
        ({"path": "a.csv.gz", "sheet": "S"}, "`sheet` with `format: csv`; leave it out: it is for excel only"),
        ({"path": "a.dat", "format": "json", "skip": 1}, "`skip` with `format: json`; leave it out: it is for csv and"),
        ({"path": "a.dat", "format": "fixed"}, "`format: fixed` without `fields`; say both: `format: fixed` and"),
        ({"path": "a.dat", "fields": {"id": "1-6"}}, "`fields` without `format: fixed`; say both: `format: fixed` and"),
        ({"path": "a.dat", "format": "fixed", "fields": {"id": "6-1"}}, "`id` is not a range of columns; write"),
        ({"path": "a.dat", "format": "fixed", "fields": {"id": [1, 6]}}, "`id` is not a range of columns; write the"),
        ({"path": "a.dat", "format": "fixed", "fields": {"id": 0}}, "`id` is not a range of columns; write"),
        ({"path": "a.csv", "quote": ","}, "`quote` is the character that parts cells, too; choose another one"),
        ({"path": "a.csv", "escape": '"'}, "`escape` is the quote, too; leave it out: a doubled quote"),
        ({"path": "a.csv", "delimiter": "§"}, "`delimiter` is not a character that can part cells; write one"),
        ({"path": "a.csv", "columns": ["id", "id"]}, "`columns` is a list that has 'id' twice; give one another name"),
        ({"path": "a.csv", "nulls": [None]}, 'item 1 of `nulls` is not a text; put it in quotes: "NULL"'),
        ({"path": "a.csv", "nulls": ["\\N"], "escape": "\\"}, "`nulls` is a list with the character of `escape`, \\,"),
        ({"path": "a.xlsx", "header_row": 0}, "`header_row` is less than 1"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_a_hint(folder: Path, source: dict[str, Any], mistake: str) -> None:
    problems = told(folder, **source)
    assert len(problems) == 1
    assert problems[0].startswith(mistake)


@pytest.mark.parametrize(
    "source",
    [
        {"path": "a.tsv.gz", "delimiter": "|", "quote": None, "nulls": ["NULL"], "skip": 1, "columns": ["id"]},
        {"path": "in/*.zip", "members": "*.csv", "escape": "\\"},
        {"path": "${INBOX:-x}/*", "format": "excel", "sheet": "S", "header_row": 3},
        {"path": "a.dat", "format": "fixed", "fields": {"id": "1-6", "flag": 7, "note": "8-"}, "encoding": "cp037"},
        {"path": "s3://bucket/in/**/*.parquet"},
    ],
)
def test_what_fits_together_is_accepted(folder: Path, source: dict[str, Any]) -> None:
    assert told(folder, **source) == []

"""Lines of CSV, without a topic."""

from __future__ import annotations

import pytest

from etl.sources.records import Csv


@pytest.mark.parametrize("values", [[], [b"1"], [b'1,"', b""]], ids=["none", "one", "two"])
def test_values_without_a_row_among_them_are_no_rows_of_the_same_columns(values: list[bytes]) -> None:
    decoded = Csv(["id", "name"], ",").decode(values)

    assert (decoded.rows.num_rows, decoded.rows.schema.names) == (0, ["id", "name"])
    assert sorted(decoded.bad) == list(range(len(values)))


@pytest.mark.parametrize("cell", [b"x" * (2 << 20), b'"' + b"x," * (1 << 20) + b'"'], ids=["plain", "quoted"])
def test_a_value_may_have_megabytes(cell: bytes) -> None:
    decoded = Csv(["id", "text"], ",").decode([b"1,a", b"2," + cell, b"3,b"])

    assert decoded.bad == {}
    assert decoded.rows.column("text").to_pylist() == ["a", cell.strip(b'"').decode(), "b"]

"""Lines of CSV, without a topic."""

from __future__ import annotations

import pytest

from etl.sources.records import Csv


@pytest.mark.parametrize("values", [[], [b"1"], [b'1,"', b""]], ids=["none", "one", "two"])
def test_values_without_a_row_among_them_are_no_rows_of_the_same_columns(values: list[bytes]) -> None:
    decoded = Csv(["id", "name"], ",").decode(values)

    assert (decoded.rows.num_rows, decoded.rows.schema.names) == (0, ["id", "name"])
    assert sorted(decoded.bad) == list(range(len(values)))

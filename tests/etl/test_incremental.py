from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import SourceError
from etl import incremental
from etl.incremental import Cursor, Edge, earlier, start_text
from etl.stream import Batch, State

MINUTES = timedelta(minutes=10)


@pytest.mark.parametrize(
    ("cursor", "lag", "expected"),
    [
        ("2024-01-01 00:05:00", MINUTES, "2023-12-31 23:55:00"),
        ("2024-01-01T00:05:00Z", MINUTES, "2023-12-31T23:55:00Z"),
        ("2024-01-01T00:05:00.123456+02:00", MINUTES, "2023-12-31T23:55:00.123456+02:00"),
        ("2024-01-01 00:05:00.5+00", MINUTES, "2023-12-31 23:55:00.5+00"),
        ("0999-01-01 00:05:00", MINUTES, "0998-12-31 23:55:00"),
        ("2024-03-01", MINUTES, "2024-02-29"),
        ("2024-03-01", timedelta(days=2), "2024-02-28"),
        ("1700000000", MINUTES, "1699999400"),
        ("1700000000.25", MINUTES, "1699999400.25"),
        ("1700000000000", MINUTES, "1699999400000"),
        ("1700000000000000", MINUTES, "1699999400000000"),
        ("1700000000000000000", MINUTES, "1699999400000000000"),
        ("anything", None, "anything"),
        ("anything", timedelta(0), "anything"),
    ],
)
def test_a_lag_is_taken_off_in_the_way_the_cursor_is_written(cursor: str, lag: timedelta | None, expected: str) -> None:
    assert earlier(cursor, lag) == expected


@pytest.mark.parametrize("cursor", ["abc", "01.02.2024", "2024-01-01x", ""])
def test_a_lag_off_something_that_is_no_time_is_refused(cursor: str) -> None:
    with pytest.raises(SourceError, match="`lag` needs a cursor that is a time or a number"):
        earlier(cursor, MINUTES)


def test_the_start_of_a_pipeline_file_is_written_like_a_cursor() -> None:
    starts = (date(2024, 1, 1), datetime(2024, 1, 1, 12, tzinfo=UTC), Decimal("1.5"), 7, "abc")
    assert [start_text(start) for start in starts] == ["2024-01-01", "2024-01-01 12:00:00+00:00", "1.5", "7", "abc"]


# --- the edge ---------------------------------------------------------------------------------------------------


def batch(rows: Sequence[dict[str, Any]]) -> Batch:
    schema = pa.schema([("id", pa.int64()), ("at", pa.int64())])
    return Batch(pa.RecordBatch.from_pylist(list(rows), schema), lambda index: {"id": rows[index]["id"] or 0})


def run(
    rows: Sequence[dict[str, Any]], state: State | None, lag: int, size: int
) -> tuple[list[dict[str, Any]], int, dict[str, Any]]:
    """One run over what there is from the cursor on: the new rows, how many were known, and the state."""
    before = int(str((state or {}).get("cursor", 0)))
    found = [row for row in rows if row["at"] is None or row["at"] >= before - lag]
    newest = max([before, *(row["at"] for row in found if row["at"] is not None)])
    edge, new, known, least = Edge(state), [], 0, pa.scalar(newest - lag, pa.int64())
    for start in range(0, len(found), size):
        read = batch(found[start : start + size])
        left = edge.sift(read, read.rows["at"], least)
        assert [left.origin(index)["id"] for index in range(left.rows.num_rows)] == [
            row["id"] or 0 for row in left.rows.to_pylist()
        ]
        new += left.rows.to_pylist()
        known += left.deduplicated
    assert len(new) + known == len(found)
    return new, known, {"cursor": str(newest), "edge": edge.counts(least)}


_ROWS = st.lists(st.fixed_dictionaries({"id": st.integers(0, 3), "at": st.none() | st.integers(0, 9)}), max_size=8)


@settings(deadline=None, max_examples=60)
@given(
    first=_ROWS,
    later=_ROWS,
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)),
    lag=st.integers(0, 4),
)
def test_every_row_is_given_once_however_runs_and_batches_are_cut(
    first: list[dict[str, Any]], later: list[dict[str, Any]], sizes: tuple[int, int, int], lag: int
) -> None:
    new, _, state = run(first, None, lag, sizes[0])
    assert new == first
    reachable = [row for row in later if row["at"] is None or row["at"] >= int(state["cursor"]) - lag]
    state = json.loads(json.dumps(state))
    new, known, state = run([*first, *reachable], state, lag, sizes[1])
    assert _counted(new) == _counted(reachable)
    new, known, _ = run([*first, *reachable], json.loads(json.dumps(state)), lag, sizes[2])
    assert new == []
    assert known == sum(state["edge"].values())


def _counted(rows: Sequence[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter((row["id"], row["at"]) for row in rows)


def test_rows_that_look_alike_as_text_are_told_apart() -> None:
    def texts(*values: str | None) -> Batch:
        return Batch(pa.record_batch({"a": pa.array(values, pa.string())}), lambda index: {"row": index})

    everything, edge = pa.nulls(1), Edge(None)
    edge.sift(texts("NULL"), everything, None)
    again = Edge({"edge": edge.counts(None)})
    assert again.sift(texts(None), everything, None).rows.num_rows == 1
    assert again.sift(texts("NULL"), everything, None).deduplicated == 1
    assert again.sift(texts("NULL"), everything, None).deduplicated == 0


def test_an_edge_that_grows_too_large_is_refused_but_one_that_moves_on_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "EDGE_LIMIT", 10)
    moving, standing = Edge(None), Edge(None)
    for at in range(50):
        rows = batch([{"id": at, "at": at}])
        moving.sift(rows, rows.rows["at"], pa.scalar(at - 3, pa.int64()))
    assert len(moving.counts(pa.scalar(46, pa.int64()))) == 4
    rows = batch([{"id": at, "at": at} for at in range(50)])
    with pytest.raises(SourceError, match="more than 10 rows are at the cursor's edge"):
        standing.sift(rows, rows.rows["at"], pa.scalar(0, pa.int64()))


# --- a cursor that is found while reading -----------------------------------------------------------------------


def values(*found: Any) -> pa.RecordBatch:
    return pa.record_batch({"at": pa.array(list(found))})


@pytest.mark.parametrize(
    ("batches", "newest", "least"),
    [
        ([[3, None, 9], [5]], "9", 9),
        (
            [["2024-01-01T10:00:00Z"], ["2024-01-01T12:00:00+05:00"]],
            "2024-01-01T10:00:00Z",
            datetime(2024, 1, 1, 10, tzinfo=UTC),
        ),
        ([["b", "a"], ["c", None]], "c", "c"),
        ([[None], [Decimal("1.50")]], "1.50", Decimal("1.5")),
    ],
)
def test_the_newest_value_is_the_cursor(batches: list[list[Any]], newest: str, least: Any) -> None:
    cursor = Cursor("at", None, None)
    for found in batches:
        cursor.order(values(*found))
    found_least = cursor.least()
    assert cursor.text == newest
    assert found_least is not None
    assert found_least.as_py() == least


def test_a_cursor_never_goes_back() -> None:
    cursor = Cursor("at", None, "7")
    cursor.order(values(3, 5))
    assert cursor.text == "7"


def test_unix_time_beyond_the_run_does_not_move_a_cursor_with_a_lag() -> None:
    began = datetime(2024, 1, 1, tzinfo=UTC)
    seconds = int(began.timestamp())
    for unit in (1, 1000, 1_000_000):
        for lag, expected in ((MINUTES, seconds * unit), (None, (seconds + 60) * unit)):
            cursor = Cursor("at", lag, None)
            cursor.began = began
            cursor.order(values(seconds * unit, (seconds + 60) * unit))
            assert cursor.text == str(expected)


def test_values_of_several_kinds_are_refused() -> None:
    cursor = Cursor("at", None, None)
    cursor.order(values("2024-01-01T10:00:00Z"))
    with pytest.raises(SourceError, match="values of several kinds"):
        cursor.order(values("yesterday"))

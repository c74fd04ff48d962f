"""What every destination does, whatever it keeps rows in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from errors import DestinationError
from etl.stream import Loaded
from tests.etl.destinations.backends import Backend, bad, load, rows


def test_a_new_destination_remembers_nothing_and_asking_creates_nothing(backend: Backend, tmp_path: Any) -> None:
    destination = backend.destination()

    assert destination.state() is None
    assert destination.quarantined() == []
    assert list(tmp_path.iterdir()) == []


def test_rows_and_state_are_there_after_the_commit(backend: Backend) -> None:
    destination = backend.destination()

    loaded = load(destination, rows(id=[1, 2]), rows(id=[3]), state={"cursor": 3, "files": ["a"]})

    assert loaded == Loaded(inserted=3)
    assert backend.rows() == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert destination.state() == {"cursor": 3, "files": ["a"]}


def test_a_load_that_fails_leaves_no_trace(backend: Backend) -> None:
    destination = backend.destination()
    load(destination, rows(id=[1]), state={"cursor": 1})

    with pytest.raises(ZeroDivisionError), destination.begin("run-2") as running:  # noqa: PT012  (the load is tested)
        running.write(rows(id=[2], new=["x"]))
        running.quarantine([bad("x", 2)])
        assert running.loaded() == Loaded(inserted=1)
        raise ZeroDivisionError

    assert backend.rows() == [{"id": 1}]
    assert destination.state() == {"cursor": 1}
    assert destination.quarantined() == []


def test_a_load_that_is_not_committed_leaves_no_trace(backend: Backend) -> None:
    destination = backend.destination()

    with destination.begin("run-1") as running:
        running.write(rows(id=[1]))
        running.loaded()

    assert destination.state() is None
    assert backend.untouched()


def test_append_adds(backend: Backend) -> None:
    load(backend.destination(), rows(id=[1]), run_id="run-1")
    load(backend.destination(), rows(id=[2]), run_id="run-2")

    assert backend.rows() == [{"id": 1}, {"id": 2}]


def test_replace_leaves_only_the_new_rows(backend: Backend) -> None:
    destination = backend.destination("replace")
    load(destination, rows(id=[1, 2]), run_id="run-1")

    assert load(destination, rows(id=[2, 3, 4]), run_id="run-2") == Loaded(inserted=3)

    assert backend.rows() == [{"id": 2}, {"id": 3}, {"id": 4}]


def test_replace_by_no_rows_empties(backend: Backend) -> None:
    destination = backend.destination("replace")
    load(destination, rows(id=[1, 2]), run_id="run-1")

    assert load(destination, rows(id=[1]).slice(0, 0), run_id="run-2") == Loaded(inserted=0)

    assert backend.rows() == []


def test_replacing_what_was_appended_leaves_only_the_new_rows(backend: Backend) -> None:
    load(backend.destination("append"), rows(id=[1]), run_id="run-1")
    load(backend.destination("append"), rows(id=[2]), run_id="run-2")

    load(backend.destination("replace"), rows(id=[3]), run_id="run-3")
    load(backend.destination("append"), rows(id=[4]), run_id="run-4")

    assert backend.rows() == [{"id": 3}, {"id": 4}]


def test_a_run_without_state_keeps_the_state_that_was_there(backend: Backend) -> None:
    destination = backend.destination()
    load(destination, rows(id=[1]), state={"cursor": 1})

    load(destination, rows(id=[2]), run_id="run-2", state=None)

    assert destination.state() == {"cursor": 1}


def test_a_state_takes_the_place_of_the_one_before(backend: Backend) -> None:
    destination = backend.destination()
    load(destination, rows(id=[1]), state={"cursor": 1, "old": True})

    load(destination, run_id="run-2", state={"cursor": 2})

    assert destination.state() == {"cursor": 2}


def test_two_runs_that_begin_from_the_same_state_do_not_both_load(backend: Backend) -> None:
    first, second = backend.destination(), backend.destination()
    assert first.state() == second.state()
    load(first, rows(id=[1]), run_id="run-1", state={"cursor": 1})

    with pytest.raises(DestinationError, match="another run has committed since this one read where to start") as told:
        load(second, rows(id=[1]), run_id="run-2", state={"cursor": 1})

    assert told.value.retryable
    assert backend.rows() == [{"id": 1}]
    load(backend.destination(), rows(id=[2]), run_id="run-3", state={"cursor": 2})


def test_pipelines_keep_their_state_and_quarantine_apart(backend: Backend) -> None:
    one, other = backend.destination(name="one"), backend.destination(name="other")

    load(one, rows(id=[1]), state={"cursor": 1}, quarantine=[bad("a", 1)])
    load(other, rows(id=[2]), state={"cursor": 2}, quarantine=[bad("a", 1)], run_id="run-2")

    assert [one.state(), other.state()] == [{"cursor": 1}, {"cursor": 2}]
    assert one.drop_quarantined([row.id for row in one.quarantined()]) == 1
    assert [row.pipeline for row in one.quarantined() + other.quarantined()] == ["other"]
    assert backend.rows() == [{"id": 1}, {"id": 2}]


def test_a_column_that_comes_later_is_added(backend: Backend) -> None:
    destination = backend.destination()
    load(destination, rows(id=[1]), rows(id=[2], note=["in the same run"]))
    load(destination, rows(id=[3], other=[7]), run_id="run-2")

    assert backend.rows() == [{"id": 1}, {"id": 2, "note": "in the same run"}, {"id": 3, "other": 7}]


def test_columns_may_come_and_go_between_batches(backend: Backend) -> None:
    batches = [rows(id=[n], **{"odd" if n % 2 else "even": [n]}) for n in range(6)]

    load(backend.destination(), *batches)

    assert backend.rows() == [{"id": n, "odd" if n % 2 else "even": n} for n in range(6)]


def test_a_column_of_nothing_but_nulls_waits_until_it_has_a_type(backend: Backend) -> None:
    destination = backend.destination()

    load(destination, rows(id=[1], note=pa.nulls(1)))
    load(
        destination,
        rows(id=[2], note=pa.nulls(1)),
        rows(id=[3], note=["x"]),
        rows(id=[4], note=pa.nulls(1)),
        run_id="2",
    )

    assert backend.rows() == [{"id": 1}, {"id": 2}, {"id": 3, "note": "x"}, {"id": 4}]


def test_a_batch_of_nothing_is_nothing(backend: Backend) -> None:
    destination = backend.destination()

    loaded = load(destination, pa.record_batch({}), rows(id=pa.nulls(0)), rows(id=[1]), pa.record_batch({}))

    assert loaded == Loaded(inserted=1)
    assert backend.rows() == [{"id": 1}]


def test_rows_of_nothing_but_nulls_are_refused_not_lost(backend: Backend) -> None:
    with pytest.raises(DestinationError, match="none of the columns a, b has a type yet"):
        load(backend.destination(), rows(a=pa.nulls(2), b=pa.nulls(2)))


def test_a_type_that_does_not_fit_names_the_column_both_types_and_the_way_out(backend: Backend) -> None:
    destination = backend.destination()
    load(destination, rows(id=[1], amount=[5]))

    with pytest.raises(DestinationError) as error:
        load(destination, rows(id=[2], amount=["5.5"]), run_id="run-2")

    assert "column amount is " in error.value.message
    assert "the data has string" in error.value.message
    assert "convert: {amount: bigint}" in str(error.value.hint)
    assert backend.rows() == [{"id": 1, "amount": 5}]


def test_a_narrower_type_fits(backend: Backend) -> None:
    load(
        backend.destination(), rows(id=[1], n=pa.array([2**40], pa.int64())), rows(id=[2], n=pa.array([7], pa.int16()))
    )

    assert backend.rows() == [{"id": 1, "n": 2**40}, {"id": 2, "n": 7}]


def test_names_of_any_kind_are_kept(backend: Backend) -> None:
    names = ['a "quoted" one', "with space", "select", "Ümläut", "per cent %", "a?b", "semi;colon", "Upper"]

    load(backend.destination(), pa.record_batch({"id": [1]} | {name: [name] for name in names}))

    assert backend.rows() == [{"id": 1} | {name: name for name in names}]


def test_a_bad_row_comes_back_from_the_quarantine_as_it_was(backend: Backend) -> None:
    destination = backend.destination()
    row = bad("12\0\n\"'ü🙂", 7)

    load(destination, rows(id=[1]), quarantine=[row])

    (found,) = destination.quarantined()
    assert (found.pipeline, found.run_id, found.bad) == ("orders", "run-1", row)
    assert found.at.tzinfo is not None


def test_only_bad_rows_are_kept_too(backend: Backend) -> None:
    destination = backend.destination()

    assert load(destination, quarantine=[bad("x", 1)], state={"cursor": 1}) == Loaded(inserted=0)

    assert len(destination.quarantined()) == 1
    assert destination.state() == {"cursor": 1}


def test_the_same_bad_row_is_kept_once_with_what_the_last_run_said(backend: Backend) -> None:
    destination = backend.destination()

    load(destination, quarantine=[bad("x", 1), bad("x", 1), bad("x", 2)])
    load(destination, quarantine=[bad("x", 1)], run_id="run-2")

    assert sorted((row.run_id, row.bad.origin["record"]) for row in destination.quarantined()) == [
        ("run-1", 2),
        ("run-2", 1),
    ]


def test_the_quarantine_is_listed_oldest_first_up_to_a_limit(backend: Backend) -> None:
    destination = backend.destination()
    for number in range(4):
        load(destination, quarantine=[bad("x", number)], run_id=f"run-{number}")

    assert [row.run_id for row in destination.quarantined(limit=2)] == ["run-0", "run-1"]
    assert len(destination.quarantined()) == 4


def test_replayed_rows_leave_the_quarantine_but_those_that_fail_again_stay(backend: Backend) -> None:
    destination = backend.destination()
    load(destination, quarantine=[bad("x", 1), bad("y", 2), bad("z", 3)])
    ids = [row.id for row in destination.quarantined() if row.bad.origin["record"] != 3]

    load(destination, rows(id=[1]), quarantine=[bad("y", 2)], replayed=ids, run_id="run-2")

    assert sorted((row.bad.origin["record"], row.run_id) for row in destination.quarantined()) == [
        (2, "run-2"),
        (3, "run-1"),
    ]


def test_replayed_rows_stay_if_the_replay_fails(backend: Backend) -> None:
    destination = backend.destination()
    load(destination, quarantine=[bad("x", 1)])
    ids = [row.id for row in destination.quarantined()]

    with pytest.raises(ZeroDivisionError), destination.begin("run-2", replayed=ids) as running:  # noqa: PT012
        running.write(rows(id=[1]))
        running.loaded()
        raise ZeroDivisionError

    assert [row.id for row in destination.quarantined()] == ids


def test_rows_found_before_a_moment_leave_the_quarantine_and_younger_ones_stay(backend: Backend) -> None:
    one, other = backend.destination(name="one"), backend.destination(name="other")
    load(other, quarantine=[bad("other", 9)])
    for number in range(4):
        load(one, quarantine=[bad("x", number)], run_id=f"run-{number}")
    waiting = one.quarantined()

    with one.begin("run-4", expired=waiting[2].at, replayed=[waiting[3].id]) as running:
        running.write(rows(id=[1]))
        running.quarantine([bad("x", 0), bad("x", 5)])
        running.loaded()
        assert running.commit({"cursor": 1}) == 1

    # 0 was found again, 1 has expired, 2 is from that very moment, 3 was replayed.
    assert sorted(row.bad.origin["record"] for row in one.quarantined()) == [0, 2, 5]
    assert len(other.quarantined()) == 1
    assert one.state() == {"cursor": 1}


def test_nothing_expires_where_nothing_waits_or_the_load_fails(backend: Backend) -> None:
    destination, later = backend.destination(), datetime.now(UTC) + timedelta(days=1)
    with destination.begin("run-1", expired=later) as running:
        running.write(rows(id=[1]))
        running.loaded()
        assert running.commit(None) == 0
    load(destination, quarantine=[bad("x", 1)], run_id="run-2")

    with destination.begin("run-3", expired=later) as running:
        running.write(rows(id=[2]))
        running.loaded()

    assert [row.run_id for row in destination.quarantined()] == ["run-2"]


def test_dropped_rows_are_gone_and_counted(backend: Backend) -> None:
    destination = backend.destination()
    assert destination.drop_quarantined(["nothing there"]) == 0
    load(destination, rows(id=[1]), quarantine=[bad("x", number) for number in range(1200)])
    ids = [row.id for row in destination.quarantined()]

    assert destination.drop_quarantined([*ids[:1100], "unknown"]) == 1100

    assert sorted(row.id for row in destination.quarantined()) == sorted(ids[1100:])
    assert backend.rows() == [{"id": 1}]


def test_memory_does_not_grow_with_the_rows(backend: Backend) -> None:
    megabyte, most = "x" * 1024, 0
    before = pa.total_allocated_bytes()

    with backend.destination().begin("run-1") as running:
        for number in range(64):
            running.write(rows(id=[number] * 1024, text=[megabyte] * 1024))
            most = max(most, pa.total_allocated_bytes() - before)
        assert running.loaded() == Loaded(inserted=64 * 1024)

    assert most < 40 * 1024 * 1024


def test_a_label_says_where_rows_go(backend: Backend) -> None:
    assert "orders" in backend.destination().label

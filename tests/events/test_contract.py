"""What every event log promises, whatever keeps it."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import EventLogError
from events import postgres, sqlite
from events.envelope import Event
from events.log import EventLog, Recorded, dead_letters, open_log
from tests.events.samples import event
from tests.events.strategies import EVENTS
from tests.services.postgres import Postgres

LONG = 20.0
"""Seconds: for what ends by itself long before that."""

ROOT = Path(__file__).parents[2]
MANY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""The log is the same for all examples: each counts from where it finds it."""


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """A PostgreSQL database for the tests of this module."""
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql", "kafka"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a log can be that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/events.db"
    if request.param == "kafka":
        return str(request.getfixturevalue("kafka_url"))
    database: str = request.getfixturevalue("database")
    with psycopg.connect(database) as connection:
        connection.execute("SET client_min_messages = error")
        connection.execute("DROP SCHEMA IF EXISTS pivotal_events CASCADE")
    return database


@pytest.fixture
def log(url: str) -> Iterator[EventLog]:
    with closing(open_log(url)) as log:
        yield log


@pytest.fixture
def reopen(url: str) -> Iterator[Callable[[], EventLog]]:
    """Opens the same log once more, as another process does."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(closing(open_log(url)))


# --- publish and read ------------------------------------------------------------------------------------------------


def test_what_was_published_is_read_in_order(log: EventLog) -> None:
    made = [event(n=n) for n in range(5)]
    log.publish(made[:2])
    log.publish(made[2:])

    read = log.read(0, 100)

    assert [recorded.event for recorded in read] == made
    assert [recorded.sequence for recorded in read] == [1, 2, 3, 4, 5]
    assert log.head() == 5


def test_it_is_still_there_after_the_log_was_closed(log: EventLog, reopen: Callable[[], EventLog]) -> None:
    made = event()
    log.publish([made])
    log.close()

    assert [recorded.event for recorded in reopen().read(0, 10)] == [made]
    with pytest.raises(EventLogError, match="closed") as raised:
        log.head()
    assert not raised.value.hint


def test_an_empty_log_has_nothing(log: EventLog) -> None:
    assert (log.head(), log.read(0, 10), log.counts(), log.dead(), log.publish([])) == (0, [], {}, [], [])


def test_reading_goes_on_after_a_sequence_and_ends_at_another(log: EventLog) -> None:
    log.publish([event() for _ in range(10)])

    assert [recorded.sequence for recorded in log.read(3, 4)] == [4, 5, 6, 7]
    assert [recorded.sequence for recorded in log.read(3, 100, until=5)] == [4, 5]


@pytest.mark.parametrize(
    ("types", "found"),
    [
        (["*"], ["a.b", "a.b.c", "ab.c", "b.c"]),
        (["a.b"], ["a.b"]),
        (["a.*"], ["a.b", "a.b.c"]),
        (["*.c"], ["a.b.c", "ab.c", "b.c"]),
        (["a.b", "b.*"], ["a.b", "b.c"]),
        ([], []),
    ],
)
def test_patterns_pick_types(log: EventLog, types: Sequence[str], found: Sequence[str]) -> None:
    log.publish([event(kind=name) for name in ("a.b", "a.b.c", "ab.c", "b.c")])

    assert [recorded.event.type for recorded in log.read(0, 10, types=types)] == found


def test_a_producers_event_is_taken_once(log: EventLog) -> None:
    assert log.publish([event("1"), event("1"), event("2")]) == [True, False, True]
    assert log.publish([event("2"), event("3"), event("1", source="another")]) == [False, True, True]
    assert [(one.event.metadata.source, one.event.metadata.dedupe_key) for one in log.read(0, 10)] == [
        ("test", "1"), ("test", "2"), ("test", "3"), ("another", "1"),
    ]  # fmt: skip


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "broken",
    [{"data": "\ud800"}, {"data": nested(220)}, {"data": object()}, {"data": math.nan}, {"data": [-math.inf]}],
    ids=["half a character", "nested too deep", "not JSON", "not a number", "no end"],
)
def test_what_cannot_be_kept_is_refused_and_so_is_what_comes_with_it(log: EventLog, broken: dict[str, Any]) -> None:
    with pytest.raises(EventLogError, match="cannot be written as JSON") as raised:
        log.publish([event("1"), event(**broken)])

    assert (log.head(), raised.value.retryable) == (0, False)
    assert log.publish([event("1")]) == [True]


@pytest.mark.parametrize(
    "data",
    [
        {"n": 2**63, "m": -(10**4000)},
        {"text": "a\0b", "\0": "\\0"},
        {"a": 1e308, "b": -0.0, "c": 5e-324},
        {"text": "NaN, or -Infinity"},
        {"emoji": "\U0001f600", "line": "\u2028", "deep": nested(150)},
        {"large": "x" * 1_000_000},
    ],
    ids=["numbers beyond 64 bits", "NUL", "floats", "words", "characters", "a megabyte"],
)
def test_data_comes_back_as_it_was(log: EventLog, data: dict[str, Any]) -> None:
    made = event(**data)
    log.publish([made])

    assert log.read(0, 1)[0].event == made


@pytest.mark.parametrize("key", ["a\0b", "a\\0b", "k" * 5000, "%", "\U0001f600"], ids=repr)
def test_any_key_tells_its_event_from_others(log: EventLog, key: str) -> None:
    made = event(key, source=key)

    assert log.publish([made, made, event(key), event("a0b", source=key)]) == [True, False, True, True]
    assert log.publish([made]) == [False]
    assert log.find(key)[0].event == log.find(made.id)[0].event == made


def test_a_key_and_its_source_are_not_mixed_up_with_others(log: EventLog) -> None:
    assert log.publish([event("bc", source="a"), event("c", source="ab")]) == [True, True]


def test_an_event_is_found_by_its_id_and_by_its_producers_id(log: EventLog) -> None:
    one, same_key = event("evt_1"), event("evt_1", source="another")
    log.publish([one, event("evt_2"), same_key])

    assert [recorded.event for recorded in log.find(one.id)] == [one]
    assert [recorded.event for recorded in log.find("evt_1")] == [one, same_key]
    assert log.find("evt_") == []


def test_events_are_counted_by_type(log: EventLog) -> None:
    log.publish([event(kind="a"), event(kind="b"), event(kind="a")])

    assert log.counts() == {"a": 2, "b": 1}


CALLS = st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("123456")), max_size=5), max_size=10)
RUNS = count()


@MANY
@given(CALLS)
def test_any_publications_and_repetitions_are_kept_once_and_in_order(
    log: EventLog, calls: Sequence[Sequence[tuple[str, str]]]
) -> None:
    """Against a model: a dict, which keeps its keys once and in order."""
    kept: dict[tuple[str, str], None] = {}
    run, start = next(RUNS), log.head()
    for call in calls:
        new = [key not in kept and key not in call[:at] for at, key in enumerate(call)]
        assert log.publish([event(f"{run}/{key}", source=source) for source, key in call]) == new
        kept |= dict.fromkeys(call)
    read = log.read(start, 1000)

    assert [(one.event.metadata.source, one.event.metadata.dedupe_key) for one in read] == [
        (source, f"{run}/{key}") for source, key in kept
    ]
    assert [one.sequence for one in read] == sorted({one.sequence for one in read})


@MANY
@given(EVENTS)
def test_any_event_is_read_as_it_was_published(log: EventLog, made: Event) -> None:
    key = f"{made.metadata.dedupe_key}{next(RUNS)}"
    made = made.model_copy(update={"metadata": made.metadata.model_copy(update={"dedupe_key": key})})
    start = log.head()

    assert log.publish([made]) == [True]
    assert [one.event for one in log.read(start, 2)] == [one.event for one in log.find(key)] == [made]


# --- dead letters ----------------------------------------------------------------------------------------------------


def test_a_dead_letter_is_listed_once_with_its_latest_error(log: EventLog) -> None:
    log.publish([event("1"), event("2")])
    one, two = log.read(0, 10)
    log.bury("mail", two, "no such mailbox", 1)
    log.bury("mail", one, "timeout", 1)
    log.bury("mail", one, "timeout again", 2)
    log.bury("tables", one, "no such column", 1)

    assert [(one.subscription, one.recorded, one.error, one.attempts) for one in log.dead()] == [
        ("mail", one, "timeout again", 2), ("tables", one, "no such column", 1), ("mail", two, "no such mailbox", 1),
    ]  # fmt: skip
    assert [letter.recorded.sequence for letter in log.dead("mail")] == [1, 2]


def test_dead_letters_come_one_by_one_and_are_counted(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.log.LETTERS", 2)
    log.publish([event(str(n)) for n in range(5)])
    for one in log.read(0, 10):
        for name in ("mail", "sms", "tables"):
            log.bury(name, one, "timeout", 1)
    letters = dead_letters(log)
    first = next(letters)
    log.revive("mail", [1, 3])

    assert [(first, *letters)] == [(first, *log.dead())]
    assert [one.recorded.sequence for one in dead_letters(log, "mail")] == [2, 4, 5]
    assert log.dead_counts() == {"mail": 3, "sms": 5, "tables": 5}


def test_a_revived_event_leaves_the_list_of_its_subscription_only(log: EventLog) -> None:
    log.publish([event()])
    [one] = log.read(0, 1)
    log.bury("mail", one, "timeout", 1)
    log.bury("tables", one, "no such column", 1)

    log.revive("mail", [one.sequence, 99])

    assert [letter.subscription for letter in log.dead()] == ["tables"]


def test_a_dead_letter_may_say_anything(log: EventLog) -> None:
    log.publish([event()])
    log.bury("mail", log.read(0, 1)[0], "\\d: NUL \0, half a character \ud800", 1)

    assert [letter.error for letter in log.dead()] == [r"\d: NUL \0, half a character \ud800"]


# --- many at once ----------------------------------------------------------------------------------------------------

PUBLISHER = """
import sys
from events.log import open_log
from tests.events.samples import event
log = open_log(sys.argv[1])
for n in range(20):
    log.publish([event(f"{sys.argv[2]}-{n}"), event(f"shared-{n}"), event(f"{sys.argv[2]}-{n}+")])
"""


def test_processes_that_open_publish_and_read_at_once_lose_nothing_and_repeat_nothing(url: str) -> None:
    """None of them finds the log made; a reader that goes on from the last event that it saw misses none."""
    publishers = [subprocess.Popen([sys.executable, "-c", PUBLISHER, url, str(n)], cwd=ROOT) for n in range(3)]
    seen: list[Recorded] = []
    with closing(open_log(url)) as log:
        while any(publisher.poll() is None for publisher in publishers) or seen[-1].sequence < log.head():
            seen += log.read(seen[-1].sequence if seen else 0, 7)
        assert seen == log.read(0, 1000)

    assert [publisher.returncode for publisher in publishers] == [0] * 3
    keys = [one.event.metadata.dedupe_key for one in seen]
    assert len(keys) == len(set(keys)) == 3 * 40 + 20
    for n in range(3):
        own = [key for key in keys if key.startswith(f"{n}-")]
        assert own == [key for at in range(20) for key in (f"{n}-{at}", f"{n}-{at}+")]
    assert [one.recorded_at for one in seen] == sorted(one.recorded_at for one in seen)


def test_threads_may_share_a_log(log: EventLog) -> None:
    def publish(name: int) -> None:
        for n in range(20):
            assert log.publish([event(f"{name}-{n}")]) == [True]
            log.read(0, 5)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(publish, range(8)))

    assert log.head() == 160


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_who_waits_hears_of_what_another_publishes(log: EventLog, reopen: Callable[[], EventLog]) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(log.wait, 0, LONG)
        reopen().publish([event()])

        assert waiting.result() == 1


def test_who_waits_hears_of_what_another_thread_publishes(log: EventLog) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(log.wait, 0, LONG) for _ in range(3)]
        log.publish([event()])

        assert [one.result() for one in waiting] == [1, 1, 1]


def test_who_is_behind_does_not_wait(log: EventLog) -> None:
    log.publish([event(), event()])

    assert log.wait(1, LONG) == 2


def test_waiting_ends_with_the_time(log: EventLog) -> None:
    log.publish([event()])

    assert log.wait(1, 0.05) == log.wait(7, 0) == 1


# --- times -----------------------------------------------------------------------------------------------------------


def test_the_last_sequence_before_a_moment_is_found(log: EventLog) -> None:
    for n in range(7):
        log.publish([event(str(n), n=n), event(str(n))])
    read = log.read(0, 100)

    assert [log.before(one.recorded_at) for one in read] == [one.sequence - 1 for one in read]
    assert log.before(read[0].recorded_at - timedelta(days=1)) == 0
    assert log.before(read[-1].recorded_at + timedelta(days=1)) == log.head()


def test_nothing_is_before_any_moment_in_an_empty_log(log: EventLog) -> None:
    assert log.before(datetime.now(UTC)) == 0


# --- pruning ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (sqlite, postgres):
        monkeypatch.setattr(backend, "PRUNE_PORTION", 3)


@pytest.mark.usefixtures("small_portions")
def test_events_up_to_a_sequence_are_pruned(log: EventLog) -> None:
    log.publish([event(str(n)) for n in range(10)])

    assert (log.prune(7), log.prune(7)) == (7, 0)
    assert [one.sequence for one in log.read(0, 100)] == [8, 9, 10]
    assert log.publish([event("0"), event("9")]) == [True, False]


@pytest.mark.usefixtures("small_portions")
def test_dead_letters_are_not_pruned(log: EventLog) -> None:
    log.publish([event() for _ in range(10)])
    for one in log.read(1, 2):
        log.bury("mail", one, "no such mailbox", 1)

    assert log.prune(9) == 7
    assert [one.sequence for one in log.read(0, 100)] == [2, 3, 10]
    assert [letter.recorded.sequence for letter in log.dead()] == [2, 3]

    log.revive("mail", [2])

    assert log.prune(9) == 1


def test_the_head_does_not_go_back_when_all_is_pruned(log: EventLog) -> None:
    log.publish([event() for _ in range(3)])

    assert (log.prune(99), log.head()) == (2, 3)

    log.publish([event()])

    assert [one.sequence for one in log.read(2, 10)] == [3, log.head()]
    assert log.head() > 3


@pytest.mark.usefixtures("small_portions")
def test_events_are_published_while_others_are_pruned(log: EventLog, reopen: Callable[[], EventLog]) -> None:
    log.publish([event() for _ in range(100)])

    def publish() -> list[list[bool]]:
        another = reopen()
        return [another.publish([event()]) for _ in range(20)]

    with ThreadPoolExecutor() as threads:
        publishing = threads.submit(publish)
        assert log.prune(99) == 99
        assert publishing.result() == [[True]] * 20

    left = [one.sequence for one in log.read(0, 100)]
    assert (left[0], len(left), left[-1]) == (100, 21, log.head())

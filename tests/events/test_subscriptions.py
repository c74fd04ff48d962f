"""Durable subscriptions, on every log that keeps them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import EventLogError, PivotalError
from events import work
from events.cause import new_event
from events.deliveries import Deliveries, Lease, Progress, Status, deliveries_of
from events.envelope import Event, Metadata
from events.failure import DeadLettered
from events.log import EventLog, open_log
from events.sqlite import SqliteEventLog
from events.subscriptions import DurableSubscription, run
from tests.events.samples import event
from tests.events.working import Handler, happened, ordered, subscription, until, working
from tests.services.process import ServerProcess


@pytest.fixture(params=["sqlite", "postgres", "kafka"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def log(url: str) -> Iterator[EventLog]:
    with closing(open_log(url)) as log:
        yield log


def status(log: EventLog) -> Status:
    [found] = deliveries_of(log).statuses()
    return found


# --- what is declared ------------------------------------------------------------------------------------------------


def handle(event: Event) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "My Mail"}, "the name may have lower-case letters"),
        ({"name": "projections"}, "choose another"),
        ({"types": []}, "at least one pattern"),
        ({"types": "test.*"}, "types is a list"),
        ({"types": ["test.*", "Test.*"]}, r"no event can have a type like 'Test\.\*'"),
        ({"types": ["test..happened"]}, "no event can have a type like"),
        ({"types": ["test."]}, "no event can have a type like"),
        ({"handler": "handle"}, "the handler is no function but str"),
        ({"handler": lambda: None}, "does not take one argument"),
        ({"start": "oldest"}, "unknown start 'oldest'"),
        ({"start": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"attempts": 0}, "attempts and concurrency are 1 or more"),
        ({"concurrency": 0}, "attempts and concurrency are 1 or more"),
        ({"backoff": 10, "longest_backoff": 5}, "longest_backoff no less"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_refused_where_it_is_declared(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(PivotalError, match=message):
        DurableSubscription(**{"name": "mail", "types": ["test.*"], "handler": handle, **wrong})  # type: ignore[arg-type]


def test_two_of_one_name_are_refused_and_so_is_none(tmp_path: Path) -> None:
    with closing(SqliteEventLog(tmp_path / "events.db")) as log:
        with pytest.raises(PivotalError, match="two subscriptions have the name 'mail'"):
            run(log, [subscription(handle), subscription(handle)], threading.Event())
        with pytest.raises(PivotalError, match="there is no subscription"):
            run(log, [], threading.Event())


def test_the_wait_doubles_up_to_its_longest_and_is_anything_up_to_that() -> None:
    declared = subscription(handle, backoff=1, longest_backoff=60)

    for attempts, longest in ((1, 1), (2, 2), (3, 4), (7, 60), (5000, 60)):
        waits = [declared.wait(attempts) for _ in range(200)]
        assert 0 <= min(waits) < longest / 4
        assert longest * 3 / 4 < max(waits) <= longest


# --- what is handled -------------------------------------------------------------------------------------------------


def test_events_of_the_types_are_handled_in_order_and_a_restart_goes_on_behind_them(log: EventLog) -> None:
    log.publish([happened(0), happened(1, kind="other.happened"), happened(2)])
    handler = Handler()
    with working(log, subscription(handler)):
        until(lambda: len(handler.seen) == 2)
        log.publish([happened(3)])
        until(lambda: len(handler.seen) == 3)
    log.publish([happened(4)])
    with working(log, subscription(handler)):
        until(lambda: len(handler.seen) == 4)

    assert handler.tried == [0, 2, 3, 4]
    assert status(log) == Status("mail", log.head(), 0, None, 0, None, 0)


def test_where_it_starts_is_said_once(log: EventLog) -> None:
    log.publish([happened(0)])
    log.publish([happened(1)])
    at = log.read(1, 1)[0].recorded_at
    earliest, latest, then = Handler(), Handler(), Handler()
    declared = [
        subscription(earliest, name="earliest"),
        subscription(latest, name="latest", start="latest"),
        subscription(then, name="then", start=at),
    ]
    with working(log, *declared):
        until(lambda: len(deliveries_of(log).statuses()) == 3)
        log.publish([happened(2)])
        until(lambda: earliest.seen and latest.seen and then.seen)
        until(lambda: earliest.seen[-1] == latest.seen[-1] == then.seen[-1] == 2)
    log.publish([happened(3)])
    with working(log, *declared):
        until(lambda: earliest.seen[-1] == latest.seen[-1] == then.seen[-1] == 3)

    assert (earliest.seen, latest.seen, then.seen) == ([0, 1, 2, 3], [2, 3], [1, 2, 3])


def test_coroutines_share_one_loop_and_what_they_publish_names_its_cause(log: EventLog) -> None:
    loops = set()

    async def answer(_: Event) -> None:
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        told = new_event("test2.answered", ("thing", "one"), {}, source="test")
        await asyncio.to_thread(log.publish, [told])

    log.publish([happened(n, str(n)) for n in range(5)])
    with working(log, subscription(answer, concurrency=3)):
        until(lambda: len(log.read(0, 100)) == 10)

    told, answers = log.read(0, 5), log.read(5, 5)
    assert len(loops) == 1
    assert {one.event.metadata.causation_id for one in answers} == {one.event.id for one in told}
    assert {one.event.metadata.correlation_id for one in answers} == {"c"}


def test_what_a_function_publishes_names_its_cause(log: EventLog) -> None:
    def answer(_: Event) -> None:
        log.publish([new_event("test2.answered", ("thing", "one"), {}, source="test")])

    log.publish([happened(0)])
    with working(log, subscription(answer)):
        until(lambda: len(log.read(0, 100)) == 2)

    told, answered = log.read(0, 2)
    assert answered.event.metadata.causation_id == told.event.id


def test_one_that_fails_hides_nothing_of_another(log: EventLog) -> None:
    log.publish([happened(n) for n in range(3)])
    fails, works = Handler(failing={0, 1, 2}), Handler()
    with working(log, subscription(fails, name="fails", attempts=1), subscription(works, name="works")):
        until(lambda: len(works.seen) == 3 and len(log.dead("fails")) == 3)


# --- what fails ------------------------------------------------------------------------------------------------------


def test_what_fails_is_tried_again_and_holds_back_its_aggregate_only(log: EventLog) -> None:
    log.publish([happened(n, str(n % 2)) for n in range(6)])
    handler = Handler(failing={0})
    with working(log, subscription(handler, attempts=10**6)):
        until(lambda: len(handler.seen) == 3 and handler.tried.count(0) > 3)
        assert handler.seen == [1, 3, 5]
        log.publish([happened(6, "0")])
        until(lambda: status(log).waiting == 4)
        handler.failing.clear()
        until(lambda: len(handler.seen) == 7)

    assert handler.seen == [1, 3, 5, 0, 2, 4, 6]
    assert status(log).waiting == 0


def test_attempts_are_counted_over_restarts(log: EventLog) -> None:
    log.publish([happened(0)])
    handler = Handler(failing={0})
    for attempts in (1, 2, 3):
        with working(log, subscription(handler, attempts=3, backoff=0.5, longest_backoff=0.5)):
            until(lambda attempts=attempts: len(handler.tried) == attempts)  # type: ignore[misc]

    [letter] = log.dead("mail")
    assert (letter.attempts, handler.tried) == (3, [0, 0, 0])


def test_a_dead_letter_tells_why_without_secrets_and_is_alerted_of_and_its_aggregate_goes_on(
    log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(event: Event) -> None:
        if event.data["n"] == 0:
            raise ValueError("postgresql://me:correct-horse-battery@host is away")
        seen.append(event.data["n"])

    seen: list[int] = []
    log.publish([happened(0), happened(1)])
    with working(log, subscription(handle, attempts=2)):
        until(lambda: seen == [1])

    [letter] = log.dead("mail")
    assert (letter.recorded.event, letter.attempts) == (happened(0).model_copy(update=_same(letter.recorded.event)), 2)
    assert letter.error.startswith("Traceback")
    assert letter.error.endswith("ValueError: postgresql://***host is away\n")
    [told] = log.read(0, 10, types=[DeadLettered.event_type])
    assert DeadLettered.of(told.event) == DeadLettered(
        subscription="mail", sequence=1, type="test.happened", error="ValueError: postgresql://***host is away"
    )
    assert told.event.metadata.causation_id == letter.recorded.event.id
    assert [record.getMessage() for record in caplog.records] == ["an event could not be handled"] * 2
    assert status(log).dead == 1


def _same(event: Event) -> dict[str, object]:
    return {"id": event.id, "timestamp": event.timestamp}


def test_every_dead_letter_is_alerted_of_one_that_was_replayed_again_and_each_of_two_sources_with_one_id(
    log: EventLog,
) -> None:
    one, another = (happened(0).model_copy(update={"id": "1", "metadata": source}) for source in map(_from, "ab"))
    log.publish([one, another])
    with working(log, subscription(Handler(failing={0}), attempts=1)):
        until(lambda: len(log.dead("mail")) == 2)
        deliveries_of(log).replay("mail", {1})
        until(lambda: len(log.read(0, 100)) == 5)

    alerts = log.read(0, 10, types=[DeadLettered.event_type])
    assert [alert.event.data["sequence"] for alert in alerts] == [1, 2, 1]


def _from(source: str) -> Metadata:
    return Metadata(source=source, dedupe_key="1", correlation_id="c")


def test_an_alert_that_dies_is_not_alerted_of(log: EventLog) -> None:
    def handle(_: Event) -> None:
        raise ValueError

    log.publish([happened(0)])
    with working(log, subscription(handle, types=["*"], attempts=1)):
        until(lambda: len(log.dead("mail")) == 2)

    assert len(log.read(0, 100)) == 2


def test_a_handler_that_exits_has_failed(log: EventLog) -> None:
    def handle(_: Event) -> None:
        sys.exit(1)

    async def handle_at_last(event: Event) -> None:
        if event.data["n"] == 0:
            sys.exit(1)
        if event.data["n"] == 1:
            raise asyncio.CancelledError
        seen.append(event.data["n"])

    seen: list[int] = []
    log.publish([happened(n) for n in range(3)])
    with working(
        log, subscription(handle, name="exits", attempts=1), subscription(handle_at_last, name="coroutine", attempts=1)
    ):
        until(lambda: len(log.dead("exits")) == 3 and seen)

    assert seen == [2]
    told = log.dead("coroutine")[0].error.rstrip().split("\n")[-1]
    assert told == "RuntimeError: the handler wanted to exit"


def test_a_dead_letter_that_is_replayed_is_handled_before_what_waits_of_its_aggregate(log: EventLog) -> None:
    log.publish([happened(0), happened(1), happened(2, "another"), happened(3)])
    handler = Handler(failing={0, 1, 2})
    with working(log, subscription(handler, attempts=1)):
        until(lambda: len(log.dead("mail")) == 3 and handler.seen == [3])
    handler.failing.clear()

    assert deliveries_of(log).replay("mail", {1, 2}) == 2
    assert (status(log).waiting, status(log).dead) == (2, 1)
    log.publish([happened(4)])
    with working(log, subscription(handler)):
        until(lambda: len(handler.seen) == 4)
    assert handler.seen == [3, 0, 1, 4]
    assert [letter.recorded.sequence for letter in log.dead()] == [3]
    assert deliveries_of(log).replay("mail") == 1
    assert deliveries_of(log).replay("mail") == 0


def test_of_many_who_replay_at_once_one_gives_each_dead_letter_back(
    log: EventLog, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.deliveries.REPLAYED", 7)
    together = threading.Barrier(4)
    log.publish([happened(n, str(n % 3)) for n in range(20)])
    for recorded in log.read(0, 20):
        log.bury("mail", recorded, "no luck", 1)
    assert deliveries_of(log).acquire("mail", "nobody", 0, start=20)

    def replay() -> int:
        with closing(open_log(url)) as another:
            together.wait(30)
            return deliveries_of(another).replay("mail")

    with ThreadPoolExecutor(4) as threads:
        replayed = [threads.submit(replay) for _ in range(4)]

    assert sum(one.result() for one in replayed) == 20
    assert (status(log).waiting, status(log).dead) == (20, 0)
    handler = Handler()
    with working(log, subscription(handler)):
        until(lambda: len(handler.seen) == 20)
    assert ordered(handler.seen, 3)


def test_a_replayed_event_that_fails_holds_back_what_was_tried_again_before(log: EventLog) -> None:
    log.publish([happened(0), happened(1)])
    handler = Handler(failing={0})
    with working(log, subscription(handler, attempts=1)):
        until(lambda: handler.seen == [1])
    handler.failing = {0, 2}
    log.publish([happened(2), happened(3)])
    with working(log, subscription(handler, attempts=10**6)):
        until(lambda: handler.tried.count(2) > 1)
        deliveries_of(log).replay("mail")
        until(lambda: handler.tried.count(0) > 3)
        handler.failing = {0}
        tried = handler.tried.count(0)
        until(lambda: handler.tried.count(0) > tried + 1)
        assert handler.seen == [1]
        handler.failing = set()
        until(lambda: len(handler.seen) == 4)

    assert handler.seen == [1, 0, 2, 3]


def test_pruning_leaves_what_a_subscription_has_not_done(log: EventLog) -> None:
    log.publish([happened(n, str(n)) for n in range(3)])
    handler = Handler(failing={1})
    with working(log, subscription(handler, attempts=10**6)):
        until(lambda: len(handler.seen) == 2 and status(log).waiting == 1)
    log.publish([happened(3), happened(4)])

    assert log.prune(log.head()) == 2
    assert [one.event.data["n"] for one in log.read(0, 10)] == [1, 3, 4]


# --- several at once -------------------------------------------------------------------------------------------------


def test_several_aggregates_are_handled_at_once_each_in_order(log: EventLog) -> None:
    together, busy, seen = threading.Barrier(3), set[str](), list[int]()

    def handle(event: Event) -> None:
        assert event.aggregate_id not in busy
        busy.add(event.aggregate_id)
        together.wait(30)
        busy.remove(event.aggregate_id)
        seen.append(event.data["n"])

    log.publish([happened(n, str(n % 3)) for n in range(30)])
    with working(log, subscription(handle, concurrency=3, attempts=1)):
        until(lambda: len(seen) == 30)

    assert log.dead() == []
    assert ordered(seen, 3)


def test_a_slow_event_holds_up_none_of_another_aggregate(log: EventLog) -> None:
    handler, slow = Handler(), threading.Event()

    def handle(event: Event) -> None:
        if event.aggregate_id == "slow":
            assert slow.wait(30)
        handler(event)

    log.publish([happened(n, "slow") for n in range(3)])
    log.publish([happened(n, str(n % 2)) for n in range(3, 50)])
    with working(log, subscription(handle, concurrency=2)):
        until(lambda: len(handler.seen) == 47)
        log.publish([happened(n, str(n % 2)) for n in range(50, 60)])
        until(lambda: len(handler.seen) == 57)
        slow.set()
        until(lambda: len(handler.seen) == 60)

    assert handler.tried[-3:] == [0, 1, 2]
    assert handler.tried == handler.seen


def test_a_lease_is_one_process_at_a_time_and_given_back_at_the_end(log: EventLog, url: str) -> None:
    log.publish([happened(n) for n in range(5)])
    first, second = Handler(), Handler()
    with closing(open_log(url)) as another:
        with working(log, subscription(first)):
            until(lambda: len(first.seen) == 5)
            with working(another, subscription(second)):
                log.publish([happened(5)])
                until(lambda: len(first.seen) == 6)
        log.publish([happened(6)])
        with working(another, subscription(second)):
            until(lambda: second.seen)

    assert (first.seen, second.seen) == ([0, 1, 2, 3, 4, 5], [6])


def test_a_worker_that_hung_changes_nothing_of_a_subscription_that_was_forgotten_and_began_anew(log: EventLog) -> None:
    log.publish([happened(0), happened(1)])
    deliveries = deliveries_of(log)
    hung = deliveries.acquire("mail", "the one that hangs", 0, start=0)
    assert hung
    deliveries.forget("mail")
    assert deliveries.acquire("mail", "another", 60, start=0)

    with pytest.raises(EventLogError, match="took subscription 'mail' over"):
        deliveries.commit(hung, Progress(2), 60)
    deliveries.release(hung)

    assert (status(log).cursor, status(log).holder) == (0, "another")


def test_a_log_that_fails_for_a_moment_has_no_event_handled_twice(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, refused, commit = threading.Event(), list[int](), Deliveries.commit

    def handle(event: Event) -> None:
        handler(event)
        assert may_end.wait(30)

    def unreliable(deliveries: Deliveries, lease: Lease, progress: Progress, seconds: float) -> None:
        if len(refused) < 2:
            refused.append(progress.cursor)
            raise EventLogError("the server is away", retryable=True)
        commit(deliveries, lease, progress, seconds)
        may_end.set()

    handler = Handler()
    monkeypatch.setattr(Deliveries, "commit", unreliable)
    log.publish([happened(0)])
    with working(log, subscription(handle), lease=30):
        until(lambda: handler.seen and may_end.is_set())
        until(lambda: status(log).waiting == 0)

    assert (handler.tried, refused) == ([0], [1, 1])


def test_what_has_begun_is_ended_when_it_is_stopped_and_nothing_else_is_begun(log: EventLog) -> None:
    begun, may_end, seen = threading.Event(), threading.Event(), list[int]()

    def handle(event: Event) -> None:
        begun.set()
        assert may_end.wait(30)
        seen.append(event.data["n"])

    log.publish([happened(n) for n in range(3)])
    with working(log, subscription(handle)) as stop:
        assert begun.wait(30)
        stop.set()
        may_end.set()
    assert seen == [0]
    handler = Handler()
    with working(log, subscription(handler)):
        until(lambda: handler.seen == [1, 2])


def test_a_log_that_is_gone_ends_it(tmp_path: Path) -> None:
    with closing(SqliteEventLog(tmp_path / "events.db")) as log:
        stop = threading.Event()
        (tmp_path / "events.db").unlink()
        with pytest.raises(EventLogError, match="was removed"):
            run(log, [subscription(handle)], stop)
        assert stop.is_set()


def test_what_is_in_memory_is_bounded_by_its_size_but_never_nothing(log: EventLog) -> None:
    log.publish([event(str(n), filler="x" * 1000) for n in range(10)])
    deliveries = deliveries_of(log)
    with working(log, subscription(Handler(failing=set()), attempts=10**6)):  # it has no number: all fail
        until(lambda: deliveries.statuses() and status(log).waiting == 10)
    until(lambda: len(deliveries.due("mail", 100, 10**6, besides=())) == 10)

    assert [deliveries.reach(3, *most) for most in ((4, 10**6), (100, 3500), (100, 10))] == [7, 5, 4]
    assert deliveries.reach(10, 4, 10**6) == 10
    assert [len(deliveries.due("mail", *most, besides=())) for most in ((4, 10**6), (100, 3500), (100, 10))] == [
        4,
        2,
        1,
    ]


def test_what_is_in_memory_is_bounded_by_its_size_however_many_aggregates_it_is_of(log: EventLog) -> None:
    log.publish([happened(n, str(n)) for n in range(10)])
    size = len(log.read(0, 1)[0].event.model_dump_json())
    deliveries = deliveries_of(log)
    with working(log, subscription(Handler(failing={*range(10)}), attempts=10**6)):
        until(lambda: deliveries.statuses() and status(log).waiting == 10)
    until(lambda: len(deliveries.due("mail", 100, 10**6, besides=())) == 10)

    assert [len(deliveries.due("mail", 100, most, besides=())) for most in (20 * size, 3 * size - 10, 1)] == [10, 3, 1]


def test_a_server_that_is_killed_and_started_again_interrupts_nothing_for_good(
    postgres_url: str, postgres_process: ServerProcess
) -> None:
    handler = Handler()
    with closing(open_log(postgres_url)) as log, working(log, subscription(handler)):
        log.publish([happened(0)])
        until(lambda: handler.seen)
        postgres_process.kill()
        postgres_process.start()
        until(lambda: _takes(log, happened(1)))
        until(lambda: 1 in handler.seen)


def _takes(log: EventLog, event: Event) -> bool:
    try:
        log.publish([event])
    except EventLogError:
        return False
    return True


# --- any failures ----------------------------------------------------------------------------------------------------

FAILURES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=25)
"""To which aggregate each event happened, and how often it fails before it works."""


@settings(max_examples=15, deadline=None)
@given(FAILURES, st.integers(1, 3), st.sampled_from([2, 200]))
def test_whatever_fails_every_event_is_handled_or_dead_and_each_aggregate_in_order(
    failures: Sequence[tuple[int, int]], concurrency: int, portion: int
) -> None:
    attempts, tried, done = 3, [0] * len(failures), list[int]()

    def handle(event: Event) -> None:
        number = event.data["n"]
        tried[number] += 1
        if tried[number] <= failures[number][1]:
            if tried[number] == attempts:
                done.append(number)
            raise ValueError
        done.append(number)

    declared = subscription(handle, attempts=attempts, backoff=0, longest_backoff=0, concurrency=concurrency)
    with TemporaryDirectory() as folder, closing(SqliteEventLog(Path(folder) / "events.db")) as log:
        log.publish([happened(n, str(aggregate)) for n, (aggregate, _) in enumerate(failures)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(work, "PORTION", portion)
            with working(log, declared):
                until(lambda: len(done) == len(failures))
        assert deliveries_of(log).statuses()[0].waiting == 0
        dead = [letter.recorded.event.data["n"] for letter in log.dead("mail")]

    assert dead == [n for n, (_, fails) in enumerate(failures) if fails >= attempts]
    assert tried == [min(fails + 1, attempts) for _, fails in failures]
    for aggregate in range(3):
        order = [n for n in done if failures[n][0] == aggregate]
        assert order == sorted(order)

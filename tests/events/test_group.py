from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from errors import EventLogError
from events.envelope import Event
from events.group import GroupCommit
from events.log import UnwritableError
from events.sqlite import SqliteEventLog
from tests.events.samples import event


class Gate(SqliteEventLog):
    """A real log that counts its commits and holds the first one until it is opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.commits: list[int] = []
        self.seconds: list[float] = []
        self.opened = threading.Event()

    def publish(self, events: Sequence[Event]) -> list[bool]:
        self.commits.append(len(events))
        assert self.opened.wait(30)
        return super().publish(events)


@pytest.fixture
def gate(path: Path) -> Gate:
    return Gate(path)


def grouped(gate: Gate, *, limit: int = 100) -> GroupCommit:
    return GroupCommit(gate, limit=limit, committed=gate.seconds.append)


async def _first_and_then(group: GroupCommit, gate: Gate, *calls: Sequence[Event]) -> list[list[bool] | BaseException]:
    """Publishes one event, and the others while that one's commit is under way."""
    first = asyncio.create_task(group.publish([event("first")]))
    while not gate.commits:
        await asyncio.sleep(0)
    others = [asyncio.create_task(group.publish(events)) for events in calls]
    await asyncio.sleep(0)
    gate.opened.set()
    return await asyncio.gather(first, *others, return_exceptions=True)


def test_what_arrives_during_a_commit_shares_the_next(gate: Gate) -> None:
    answers = asyncio.run(
        _first_and_then(grouped(gate), gate, [event("a"), event("b")], [], [event("a"), event("c")], [event("first")])
    )

    assert answers == [[True], [True, True], [], [False, True], [False]]
    assert gate.commits == [1, 5]
    assert len(gate.seconds) == 2
    assert sum(gate.counts().values()) == 4


def test_what_cannot_be_written_fails_for_who_brings_it_alone(gate: Gate) -> None:
    async def publish() -> None:
        calls = [event("a")], [event("b", broken="\ud800")], [event("c")]
        _, a, b, c = await _first_and_then(grouped(gate), gate, *calls)
        assert [a, type(b), c] == [[True], UnwritableError, [True]]

    asyncio.run(publish())

    assert [recorded.event.metadata.dedupe_key for recorded in gate.read(0, 10)] == ["first", "a", "c"]


def test_everyone_who_shares_a_failed_commit_hears_of_it_and_the_next_one_goes_on(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def publish() -> None:
        group = grouped(gate)
        _, *answers = await _first_and_then(group, gate, [event("a")], [event("b")])
        assert [type(answer) for answer in answers] == [EventLogError, EventLogError]
        monkeypatch.undo()
        assert await group.publish([event("a")]) == [True]

    def full(events: Sequence[Event]) -> list[bool]:
        if len(events) == 1:
            return Gate.publish(gate, events)
        raise EventLogError("the disk is full", retryable=True)

    monkeypatch.setattr(gate, "publish", full)
    asyncio.run(publish())

    assert [recorded.event.metadata.dedupe_key for recorded in gate.read(0, 10)] == ["first", "a"]


def test_one_who_no_longer_waits_does_not_hold_up_the_others(gate: Gate) -> None:
    async def publish() -> list[bool]:
        group = grouped(gate)
        gone = asyncio.create_task(group.publish([event("gone")]))
        while not gate.commits:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(group.publish([event("waiting")]))
        gone.cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        return await waiting

    assert asyncio.run(publish()) == [True]
    assert gate.head() == 2


def test_the_loop_goes_on_during_a_commit(gate: Gate) -> None:
    async def publish() -> int:
        turns = 0
        commit = asyncio.create_task(grouped(gate).publish([event()]))
        while not gate.commits or turns < 10:
            turns += 1
            await asyncio.sleep(0)
        assert not commit.done()
        gate.opened.set()
        await commit
        return turns

    assert asyncio.run(publish()) >= 10


def test_more_than_may_wait_is_refused_until_what_waits_is_stored(gate: Gate) -> None:
    group = grouped(gate, limit=2)

    [first, second, third] = asyncio.run(_first_and_then(group, gate, [event("a"), event("b")], [event("c")]))

    assert [first, second] == [[True], [True, True]]
    assert isinstance(third, EventLogError)
    assert third.retryable
    assert "3 events wait for the event log; 2 may" in third.message
    assert asyncio.run(group.publish([event("c")])) == [True]

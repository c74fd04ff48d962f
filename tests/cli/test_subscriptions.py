"""`pivotal events subscriptions | unsubscribe | replay --subscription`, and `work --subscriptions`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cli.subscriptions import load
from errors import PivotalError
from events.log import EventLog
from events.sqlite import SqliteEventLog
from tests.cli.conftest import Pivotal
from tests.events.working import Handler, happened, subscription, until, working

DECLARED = """
import os
from events.subscriptions import DurableSubscription

def handle(event):
    with open("seen", "a") as file:
        print(event.data["n"], file=file)

subscriptions = [DurableSubscription(name="mail", types=["test.*"], handler=handle)]
one = subscriptions[0]
number = 7
none = []
twice = [one, one]
"""


@pytest.fixture
def log(project: Path) -> Iterator[EventLog]:
    """The project's event log."""
    with closing(SqliteEventLog(project / "data" / "events.db")) as log:
        yield log


@pytest.fixture
def module(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user in the project's root."""
    (project / "shop_subscriptions.py").write_text(DECLARED)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "shop_subscriptions"
    sys.modules.pop("shop_subscriptions", None)


def die(log: EventLog, *numbers: int) -> Handler:
    """Events of which these die."""
    handler = Handler(failing=set(numbers))
    log.publish([happened(n, str(n)) for n in range(5)])
    with working(log, subscription(handler, attempts=1)):
        until(lambda: len(handler.tried) == 5)
    return handler


def test_subscriptions_says_how_far_they_are(pivotal: Pivotal, log: EventLog) -> None:
    die(log, 1, 2)
    log.publish([happened(5)])

    heading, line = pivotal("events", "subscriptions").out.splitlines()

    assert heading.split() == ["subscription", "read", "up", "to", "lag", "worked", "by", "waiting", "dead"]
    assert line.split() == ["mail", "5", "3", "0", "2"]  # two alerts, and the sixth event, lie behind
    assert pivotal("events", "subscriptions", "--json").json == [
        {"name": "mail", "cursor": 5, "lag": 3, "holder": None, "waiting": 0, "oldest": None, "dead": 2}
    ]


def test_no_subscription_is_told_in_words(pivotal: Pivotal, log: EventLog) -> None:  # noqa: ARG001
    assert pivotal("events", "subscriptions").out.startswith("No subscription was ever worked")


def test_replay_gives_dead_letters_back_to_their_subscription(pivotal: Pivotal, log: EventLog) -> None:
    handler = die(log, 1, 2, 3)
    handler.failing.clear()

    one = pivotal("events", "replay", "--subscription", "mail", "3")
    rest = pivotal("events", "replay", "--subscription", "mail", "--json")

    assert one.out == "1 dead letter of mail will be handled again.\n"
    assert rest.json == {"subscription": "mail", "replayed": 2}
    assert (one.code, rest.code, log.dead()) == (0, 0, [])
    with working(log, subscription(handler)):
        until(lambda: len(handler.seen) == 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--subscription", "post"], "no subscription 'post' was ever worked; there is: mail"),
        (["--subscription", "mail", "77"], "not a dead letter of mail: 77"),
    ],
)
def test_replay_says_what_is_not_there(pivotal: Pivotal, log: EventLog, arguments: list[str], message: str) -> None:
    die(log, 1)

    answer = pivotal("events", "replay", *arguments)

    assert answer.code == 2
    assert message in answer.err
    assert len(log.dead("mail")) == 1


def test_unsubscribe_forgets_a_subscription_that_nobody_works(pivotal: Pivotal, log: EventLog) -> None:
    handler = die(log, 1)
    with working(log, subscription(handler)):
        until(lambda: pivotal("events", "subscriptions", "--json").json[0]["holder"])
        refused = pivotal("events", "unsubscribe", "mail", "--yes")

    assert refused.code == 1
    assert "is being worked" in refused.err
    assert len(log.dead("mail")) == 1
    assert pivotal("events", "unsubscribe", "mail", "--yes").out == "mail is forgotten.\n"
    assert log.dead() == []
    assert pivotal("events", "unsubscribe", "mail", "--yes").code == 2


def test_subscriptions_of_a_module_in_the_root_are_loaded(module: str) -> None:
    assert [one.name for one in load(f"{module}:subscriptions")] == ["mail"]
    assert [one.name for one in load(f"{module}:one")] == ["mail"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("shop_subscriptions", "not a module and a name"),
        ("nothing_here:subscriptions", "ModuleNotFoundError: No module named 'nothing_here'"),
        ("shop_subscriptions:others", "has no attribute 'others'"),
        ("shop_subscriptions:number", "not subscriptions, but int"),
        ("shop_subscriptions:none", "there is no subscription to work"),
        ("shop_subscriptions:twice", "two subscriptions have the name 'mail'"),
    ],
)
@pytest.mark.usefixtures("module")
def test_what_is_no_subscription_is_refused(place: str, message: str) -> None:
    with pytest.raises(PivotalError, match=message) as raised:
        load(place)

    assert raised.value.hint


@pytest.mark.usefixtures("module")
def test_a_worker_works_subscriptions_too_until_sigterm(log: EventLog, project: Path) -> None:
    log.publish([happened(0)])
    command: list[str | Path] = [Path(sys.executable).parent / "pivotal", "events", "work"]
    command += ["--subscriptions", "shop_subscriptions:one"]
    with (project / "worker.log").open("wb") as said:
        process = subprocess.Popen(command, cwd=project, stderr=said, stdout=said)
    try:
        until(lambda: (project / "seen").exists() and (project / "seen").read_text() == "0\n")
        process.terminate()
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()

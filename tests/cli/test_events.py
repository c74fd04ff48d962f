"""`pivotal events ...`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from events.log import EventLog
from events.sqlite import SqliteEventLog
from projections.apply import SUBSCRIPTION
from tests.cli.conftest import Pivotal
from tests.events.samples import event
from tests.projections.samples import NOON, sendgrid_event

LEAST = {"specversion": "1.0", "id": "1", "source": "me", "type": "my.test"}


@pytest.fixture
def log(project: Path) -> Iterator[EventLog]:
    """The project's event log."""
    with closing(SqliteEventLog(project / "data" / "events.db")) as log:
        yield log


def bury(log: EventLog, sequence: int, error: str = "Traceback ...\nValueError: no such mailbox") -> None:
    [recorded] = log.read(sequence - 1, 1)
    log.bury(SUBSCRIPTION, recorded, error, 1)


def test_list_shows_the_newest_events_in_order(pivotal: Pivotal, log: EventLog) -> None:
    log.publish([event(f"key-{n}") for n in range(30)])

    answer = pivotal("events", "list", "--limit", "3")

    heading, *lines = answer.out.splitlines()
    assert heading.split("  ")[0] == "sequence"
    assert [line.split()[-1] for line in lines] == ["key-27", "key-28", "key-29"]


def test_list_finds_rare_types_however_far_back_they_are(pivotal: Pivotal, log: EventLog) -> None:
    log.publish([event("rare", kind="stripe.invoice.paid"), *(event() for _ in range(2500))])

    answer = pivotal("events", "list", "--type", "stripe.*", "--json")

    assert [told["dedupekey"] for told in answer.json] == ["rare"]
    assert pivotal("events", "list", "--type", "nothing.*").out == "No such events.\n"


def test_show_finds_an_event_by_sequence_by_id_and_by_its_producers_id(pivotal: Pivotal, log: EventLog) -> None:
    wanted = event("evt_1", big=2**80)
    log.publish([event(), wanted])

    for key in ("2", wanted.id, "evt_1"):
        [told] = pivotal("events", "show", key, "--json").json
        assert (told["sequence"], told["id"], told["data"]) == ("2", wanted.id, {"big": 2**80})
    assert '"dedupekey": "evt_1"' in pivotal("events", "show", "2").out


@pytest.mark.parametrize("key", ["99", "0", "evt_none", "9" * 30, "²"])
def test_show_says_if_there_is_no_such_event(pivotal: Pivotal, log: EventLog, key: str) -> None:
    log.publish([event()])

    answer = pivotal("events", "show", key)

    assert (answer.code, answer.out) == (2, "")
    assert "no event" in answer.err


def test_publish_takes_what_list_tells(pivotal: Pivotal, log: EventLog, project: Path) -> None:
    log.publish([event("a", n=1), event("b")])
    told = pivotal("events", "list", "--json").json
    told[1] |= {"id": "new", "dedupekey": "c"}
    (project / "events.json").write_text(json.dumps(told))

    answer = pivotal("events", "publish", "events.json", "--json")

    assert answer.json == {"events": 2, "new": 1}
    assert [recorded.event.metadata.dedupe_key for recorded in log.read(0, 10)] == ["a", "b", "c"]


@pytest.mark.parametrize("written", ["{0}", "{0}\n", "[{0}]", "\n {0} \n\n{0}\n", "[{0}, {0}]\n[]"])
def test_publish_reads_one_a_list_or_one_a_line(pivotal: Pivotal, log: EventLog, project: Path, written: str) -> None:
    (project / "events.json").write_text(written.replace("{0}", json.dumps(LEAST)))

    assert pivotal("events", "publish", "events.json").code == 0
    assert [recorded.event.type for recorded in log.read(0, 10)] == ["my.test"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('{"specversion": "1.0",\n"id" 1}', "events.json:2:6: not JSON"),
        ("[1]", "events.json: not a CloudEvent, but int"),
        ('{"specversion": "1.0", "id": "1"}', "has no source and no type"),
        ("{}", "specversion is not '1.0'"),
    ],
)
def test_publish_puts_nothing_on_the_log_if_anything_is_wrong(
    pivotal: Pivotal, log: EventLog, project: Path, written: str, message: str
) -> None:
    (project / "events.json").write_text(f"{json.dumps(LEAST)}\n{written}")

    answer = pivotal("events", "publish", "events.json")

    assert answer.code == 1
    assert message.replace(":2:", ":3:") in answer.err
    assert "hint: " in answer.err
    assert log.head() == 0


def test_dead_shows_why_and_replay_applies_what_now_works(pivotal: Pivotal, log: EventLog) -> None:
    log.publish([sendgrid_event("delivered", "good"), sendgrid_event("delivered", "bad", NOON, email=None)])
    bury(log, 1)
    bury(log, 2)

    shown = pivotal("events", "dead")
    replayed = pivotal("events", "replay")

    assert [line.split()[0] for line in shown.out.splitlines()] == ["sequence", "1", "2"]
    assert shown.out.count("ValueError: no such mailbox") == 2
    assert "Traceback" not in shown.out
    assert replayed.code == 1
    assert replayed.out.startswith("1 of 2 dead letters were applied.\n  2  sendgrid.delivered: ")
    [left] = pivotal("events", "dead", "--json").json
    assert (left["event"]["sequence"], left["subscription"]) == ("2", SUBSCRIPTION)
    assert "email" in left["error"]


def test_replay_takes_the_dead_letters_that_are_named(pivotal: Pivotal, log: EventLog) -> None:
    log.publish([sendgrid_event("delivered", "1"), sendgrid_event("open", "2")])
    bury(log, 1)
    bury(log, 2)

    assert pivotal("events", "replay", "2", "--json").json == {"replayed": 1, "dead": []}
    assert [letter.recorded.sequence for letter in log.dead()] == [1]
    unknown = pivotal("events", "replay", "1", "2", "7")
    assert unknown.code == 2
    assert "not a dead letter of the tables: 2, 7" in unknown.err


def test_stats_count_types_and_dead_letters_and_show_who_is_behind(pivotal: Pivotal, log: EventLog) -> None:
    log.publish([event(kind="a"), event(kind="stripe.invoice.paid"), event(kind="a")])
    bury(log, 1)
    since = log.read(1, 1)[0].recorded_at

    counted = {"events": 3, "head": 3, "types": {"a": 2, "stripe.invoice.paid": 1}, "dead": {SUBSCRIPTION: 1}}
    told = pivotal("events", "stats", "--json").json
    [tables] = told.pop("readers")
    assert told == counted
    assert datetime.fromisoformat(tables.pop("oldest")) == since
    assert tables == {"name": SUBSCRIPTION, "position": 1, "lag": 2}
    shown = pivotal("events", "stats").out
    assert "all                       3" in shown
    assert f"{since:%Y-%m-%d %H:%M:%S} UTC, 0:00:" in shown
    assert "1 dead letter of projections" in shown


def test_prune_deletes_what_is_old_and_says_why_it_stopped(pivotal: Pivotal, log: EventLog) -> None:
    log.publish([event(), event(), event()])

    assert pivotal("events", "prune", "--older-than", "30d", "--json").json["events"] == 0
    tried = pivotal("events", "prune", "--older-than", "0s", "--dry-run").out
    assert tried.startswith("2 events would be deleted.\nLooked at all up to 3: ")
    assert log.read(0, 10)[0].sequence == 1

    assert pivotal("events", "prune", "--older-than", "0s").out.startswith("2 events were deleted.\n")
    assert [one.sequence for one in log.read(0, 10)] == [3]


def test_an_age_that_is_none_is_refused(pivotal: Pivotal, log: EventLog) -> None:
    answer = pivotal("events", "prune", "--older-than", "soon")

    assert (answer.code, log.head()) == (2, 0)
    assert "write a number and a unit" in answer.err


def test_an_empty_log_is_told_in_words(pivotal: Pivotal, project: Path) -> None:  # noqa: ARG001
    assert pivotal("events", "list").out == "No such events.\n"
    assert pivotal("events", "dead").out == "No dead letters.\n"
    assert pivotal("events", "replay").out == "0 of 0 dead letters were applied.\n"


def test_tail_shows_events_as_they_come_until_interrupted(log: EventLog, project: Path) -> None:
    log.publish([event("before")])
    command: list[str | Path] = [
        Path(sys.executable).parent / "pivotal",
        "events",
        "tail",
        "--json",
        "--type",
        "test.*",
    ]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        assert tail.stdout
        assert tail.stderr
        assert tail.stderr.readline().startswith("Waiting for events")
        log.publish([event("1"), event(kind="other"), event("2")])
        lines = [tail.stdout.readline(), tail.stdout.readline()]
        tail.send_signal(signal.SIGINT)
        assert tail.wait() == 130

    assert [json.loads(line)["dedupekey"] for line in lines] == ["1", "2"]

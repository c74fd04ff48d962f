"""`pivotal events list | show | tail | publish | dead | replay | ...`: the event log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from textwrap import indent
from typing import TYPE_CHECKING, Any, TextIO

import click

from cli import retention, subscriptions
from cli.log import event_log
from cli.output import json_option, say, say_json, table
from cli.work import work
from errors import PivotalError

if TYPE_CHECKING:
    from events.envelope import Event
    from events.log import DeadLetter, EventLog, Recorded

PORTION = 1000
PATIENCE = 5.0
"""Seconds to wait for an event before the log is looked at once more, while it is followed."""

_COLUMNS = ("sequence", "recorded (UTC)", "type", "aggregate", "producer's id")
_LETTER_COLUMNS = ("sequence", "type", "aggregate", "subscription", "since", "tries", "error")
_EXAMPLE = 'the least that will do: {"specversion": "1.0", "id": "1", "source": "me", "type": "my.test"}'

type_option = click.option(
    "--type", "types", multiple=True, default=("*",), help="Only these types: `stripe.invoice.*`; may be repeated."
)


@click.group()
def events() -> None:
    """Look into the event log, and look after what could not be handled."""


events.add_command(work)
events.add_command(retention.prune)
events.add_command(retention.stats)
events.add_command(subscriptions.subscriptions)
events.add_command(subscriptions.unsubscribe)


@events.command("list")
@type_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many events to show.")
@json_option
def list_(types: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show the newest events, oldest of them first."""
    with event_log() as log:
        found = _newest(log, types, limit)
    if as_json:
        say(_json([_as_dict(recorded) for recorded in found]))
    elif found:
        table(_COLUMNS, [_cells(recorded) for recorded in found])
    else:
        say("No such events.")


@events.command()
@click.argument("key")
@json_option
def show(key: str, as_json: bool) -> None:
    """Show an event, whole.

    KEY is its sequence in the log, its id, or its producer's id (`evt_...`).
    """
    with event_log() as log:
        found = _find(log, key)
    if not found:
        raise click.UsageError(f"no event {key!r} in the log; see `pivotal events list`")
    if as_json:
        say(_json([_as_dict(recorded) for recorded in found]))
    else:
        for recorded in found:
            say(_json(_as_dict(recorded)))


@events.command()
@type_option
@json_option
def tail(types: tuple[str, ...], as_json: bool) -> None:
    """Show events as they come, until Ctrl-C; with --json, one a line."""
    with event_log() as log:
        coming = _follow(log, types, after=log.head())
        say("Waiting for events; Ctrl-C ends it.", error=True)
        for recorded in coming:
            say(json.dumps(_as_dict(recorded)) if as_json else "  ".join(map(str, _cells(recorded))))


@events.command()
@click.argument("file", type=click.File(encoding="utf-8"), default="-")
@json_option
def publish(file: TextIO, as_json: bool) -> None:
    """Put events on the log, all or none.

    FILE (or standard input) holds CloudEvents 1.0 in JSON: one, a list, or one a line. An event whose source and id
    the log knows is not put there again.
    """
    from events.envelope import from_cloudevent

    made = [from_cloudevent(told) for told in _cloudevents(file)]
    with event_log() as log:
        new = sum(log.publish(made))
    if as_json:
        say_json({"events": len(made), "new": new})
    else:
        say(f"{new} of {len(made)} event{'s' * (len(made) != 1)} are new.")


@events.command()
@click.option("--subscription", help="Only of this subscription.")
@json_option
def dead(subscription: str | None, as_json: bool) -> None:
    """Show dead letters: events that could not be handled, and why."""
    from events.log import dead_letters

    with event_log() as log:
        letters = dead_letters(log, subscription)
        if as_json:
            _say_each(map(_letter_as_dict, letters))
        elif rows := [*map(_letter, letters)]:
            table(_LETTER_COLUMNS, rows)
        else:
            say("No dead letters.")


@events.command()
@click.argument("sequences", nargs=-1, type=int)
@click.option("--subscription", help="A durable subscription; its worker handles them.  [default: the tables]")
@json_option
def replay(sequences: tuple[int, ...], subscription: str | None, as_json: bool) -> int:
    """Apply dead letters to the tables again; those that now work leave the list.

    SEQUENCES pick dead letters (see `pivotal events dead`); all if none is given. Exit code 1 if any of them is still
    dead.

    Those of a durable subscription leave the list at once and wait for its worker, before what waits of the same
    aggregates.
    """
    from events.log import PROJECTIONS

    if subscription is None or subscription == PROJECTIONS:
        return _replay_tables(sequences, as_json)
    with event_log() as log:
        replayed = subscriptions.replay(log, subscription, sequences)
    if as_json:
        say_json({"subscription": subscription, "replayed": replayed})
    else:
        say(f"{replayed} dead letter{'s' * (replayed != 1)} of {subscription} will be handled again.")
    return 0


def _replay_tables(sequences: tuple[int, ...], as_json: bool) -> int:
    from etl.destinations.warehouse import open_warehouse
    from events.envelope import new_id
    from events.log import PROJECTIONS, dead_letters
    from projections import apply
    from settings import get_settings

    with event_log() as log:
        waiting = (letter.recorded.sequence for letter in dead_letters(log, PROJECTIONS))
        if unknown := set(sequences).difference(waiting):
            raise click.UsageError(f"not a dead letter of the tables: {', '.join(map(str, sorted(unknown)))}")
        warehouse = open_warehouse(get_settings().warehouse_url)
        applied = apply.replay(log, warehouse, sequences or None, run_id=new_id())
    if as_json:
        say_json({"replayed": applied.events, "dead": [asdict(one) for one in applied.dead]})
    else:
        say(f"{applied.events - len(applied.dead)} of {applied.events} dead letters were applied.")
        for one in applied.dead:
            say(f"  {one.sequence}  {one.type}: {one.error}")
    return int(bool(applied.dead))


def _newest(log: EventLog, types: Sequence[str], limit: int) -> list[Recorded]:
    """The last `limit` events, in order: the log is read in portions from its end."""
    found: list[Recorded] = []
    until = log.head()
    while until > 0 and len(found) < limit:
        after = max(0, until - PORTION)
        found = log.read(after, PORTION, until=until, types=types) + found
        until = after
    return found[-limit:]


def _follow(log: EventLog, types: Sequence[str], after: int) -> Iterator[Recorded]:
    while True:
        head = log.head()
        found = log.read(after, PORTION, until=head, types=types)
        yield from found
        after = found[-1].sequence if len(found) == PORTION else head
        if not found:
            log.wait(after, PATIENCE)


def _find(log: EventLog, key: str) -> list[Recorded]:
    """By sequence, if it is a number that is one; else by id."""
    at = int(key) if key.isdecimal() and len(key) < 19 else 0
    return log.read(at - 1, 1, until=at) or log.find(key)


def _cloudevents(file: TextIO) -> Iterator[dict[str, Any]]:
    text, at = file.read().strip(), 0
    while at < len(text):
        try:
            value, at = json.JSONDecoder().raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise PivotalError(
                f"{file.name}:{error.lineno}:{error.colno}: not JSON: {error.msg}", hint=_EXAMPLE
            ) from None
        at += len(text[at:]) - len(text[at:].lstrip())
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict):
                raise PivotalError(f"{file.name}: not a CloudEvent, but {type(one).__name__}", hint=_EXAMPLE)
            yield one


def _as_dict(recorded: Recorded) -> dict[str, Any]:
    """A CloudEvent, with the extensions `sequence` and `recordedtime` of the CloudEvents specification."""
    from events.envelope import to_cloudevent

    in_log = {"sequence": str(recorded.sequence), "recordedtime": recorded.recorded_at.isoformat()}
    return {**to_cloudevent(recorded.event), **in_log}


def _cells(recorded: Recorded) -> tuple[object, ...]:
    event = recorded.event
    at = f"{recorded.recorded_at:%Y-%m-%d %H:%M:%S}"
    return str(recorded.sequence), at, event.type, _aggregate(event), event.metadata.dedupe_key


def _letter(letter: DeadLetter) -> tuple[object, ...]:
    from events.failure import last_line

    event = letter.recorded.event
    error = last_line(letter.error)
    at = f"{letter.at:%Y-%m-%d %H:%M}"
    return str(letter.recorded.sequence), event.type, _aggregate(event), letter.subscription, at, letter.attempts, error


def _letter_as_dict(letter: DeadLetter) -> dict[str, object]:
    told = {"subscription": letter.subscription, "attempts": letter.attempts, "at": letter.at, "error": letter.error}
    return {**told, "event": _as_dict(letter.recorded)}


def _say_each(values: Iterable[object]) -> None:
    """A list in JSON; few of its values are in memory at once."""
    before = "["
    for value in values:
        click.echo(f"{before}\n{indent(_json(value), '  ')}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


def _json(value: object) -> str:
    """Not `say_json`: an event may hold whole numbers of any size."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _aggregate(event: Event) -> str:
    return f"{event.aggregate_type}/{event.aggregate_id}"

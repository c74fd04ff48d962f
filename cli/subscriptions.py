"""`pivotal events subscriptions | unsubscribe`, and the subscriptions that `pivotal events work` is given."""

from __future__ import annotations

import importlib
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cli.log import event_log
from cli.output import ask, json_option, say, say_json, table
from errors import PivotalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events.deliveries import Deliveries
    from events.log import EventLog
    from events.subscriptions import DurableSubscription

_COLUMNS = ("subscription", "read up to", "lag", "worked by", "waiting", "dead")
_HINT = "write package.module:name, as for: subscriptions = [DurableSubscription(...), ...]"


@click.command()
@json_option
def subscriptions(as_json: bool) -> None:
    """Show how far the durable subscriptions are.

    The lag counts the events in the log that it has not read yet, whatever their type; those that are tried again, in
    hand, or held back by such are waiting.
    """
    from events.deliveries import deliveries_of

    with event_log() as log:
        found = deliveries_of(log).statuses()
    if as_json:
        say_json([asdict(one) for one in found])
    elif found:
        table(_COLUMNS, [(one.name, str(one.cursor), one.lag, one.holder, one.waiting, one.dead) for one in found])
    else:
        say("No subscription was ever worked: see `pivotal events work --help`.")


@click.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def unsubscribe(name: str, yes: bool) -> None:
    """Forget a durable subscription: its cursor, what waits, its dead letters.

    Events that it has not read are then pruned like others. Worked again, it starts where it is declared to.
    """
    from events.deliveries import deliveries_of

    with event_log() as log:
        deliveries = deliveries_of(log)
        check_known(deliveries, name)
        if not yes:
            ask(f"Forget {name}?")
        deliveries.forget(name)
    say(f"{name} is forgotten.")


def check_known(deliveries: Deliveries, name: str) -> None:
    """Refuses a subscription that was never worked.

    Raises:
        click.UsageError: There is none of this name.
    """
    known = [one.name for one in deliveries.statuses()]
    if name not in known:
        raise click.UsageError(f"no subscription {name!r} was ever worked; there is: {', '.join(known) or 'none'}")


def replay(log: EventLog, name: str, sequences: Sequence[int]) -> int:
    """Gives dead letters back to the subscription; says how many.

    Raises:
        click.UsageError: There is no such subscription, or no such dead letter.
    """
    from events.deliveries import deliveries_of
    from events.log import dead_letters

    deliveries = deliveries_of(log)
    check_known(deliveries, name)
    if unknown := set(sequences) - {letter.recorded.sequence for letter in dead_letters(log, name)}:
        raise click.UsageError(f"not a dead letter of {name}: {', '.join(map(str, sorted(unknown)))}")
    return deliveries.replay(name, set(sequences) or None)


def load(place: str) -> Sequence[DurableSubscription]:
    """The subscriptions that a module of the user declares.

    Args:
        place: `package.module:name`; the name is of one subscription or of several. Modules are looked for in the
            project's root, too.

    Raises:
        PivotalError: It cannot be imported, is something else, or cannot be worked together.
    """
    from events.failure import without_secrets
    from events.subscriptions import DurableSubscription, check_together
    from settings import get_settings

    module, separator, name = place.partition(":")
    if not (module and separator and name):
        raise PivotalError(f"--subscriptions {place}: not a module and a name", hint=_HINT)
    if (root := str(get_settings().root)) not in sys.path:
        sys.path.insert(0, root)
    try:
        found = getattr(importlib.import_module(module), name)
    except PivotalError:  # what is declared there cannot work
        raise
    except Exception as error:
        reason = without_secrets(f"{type(error).__name__}: {error}")
        raise PivotalError(f"--subscriptions {place}: {reason}", hint=_HINT) from error
    declared = [found] if isinstance(found, DurableSubscription) else found
    if not isinstance(declared, list | tuple) or not all(isinstance(one, DurableSubscription) for one in declared):
        raise PivotalError(f"--subscriptions {place}: not subscriptions, but {type(found).__name__}", hint=_HINT)
    check_together(declared)
    return declared

"""`pivotal state show | set | reset`: where the next run starts from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import click

from cli.output import ask, json_option, say, say_json, table
from cli.pipelines import find_pipeline

if TYPE_CHECKING:
    from etl.stream import State

SHOWN = 20
"""Files of a state that are shown one by one."""


@click.group()
def state() -> None:
    """Look at, and change, where the next run starts from."""


@state.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what the last run remembered.

    NAME is the pipeline.
    """
    from etl.destinations import open_destination

    found = open_destination(find_pipeline(name)).state()
    if as_json:
        say_json({"pipeline": name, "state": found})
    elif found:
        table(("key", "value"), [(key, _shown(key, value)) for key, value in found.items()])
    else:
        say(f"{name} remembers nothing: its next run starts at the beginning.")


@state.command("set")
@click.argument("name")
@click.argument("values", nargs=-1)
@click.option("--state", "whole", help='The whole state, as JSON: \'{"cursor": "2024-01-01"}\'.')
@json_option
def set_(name: str, values: tuple[str, ...], whole: str | None, as_json: bool) -> None:
    """Change it. The next run reads from there.

    NAME is the pipeline; VALUES are KEY=VALUE: cursor=2024-01-01.
    """
    from etl.state import with_values

    if bool(values) == (whole is not None):
        raise click.UsageError("say either KEY=VALUE (cursor=2024-01-01), or --state JSON")
    new = _parsed(whole) if whole is not None else None
    pairs = dict(map(_pair, values))
    _change(name, lambda before: with_values(before, pairs) if new is None else new, as_json=as_json)


@state.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def reset(name: str, yes: bool, as_json: bool) -> None:
    """Forget it. The next run reads everything.

    NAME is the pipeline.
    """
    find_pipeline(name)
    if not yes:
        ask(f"Let the next run of {name} start at the beginning?")
    _change(name, lambda _: {}, as_json=as_json)


def _change(name: str, change: Callable[[State], State], *, as_json: bool) -> None:
    from etl.state import change_state

    before, after = change_state(find_pipeline(name), change)
    if as_json:
        say_json({"pipeline": name, "before": before, "after": after})
    else:
        keys = dict.fromkeys([*before, *after])
        table(
            ("key", "before", "now"), [(key, *(_shown(key, each.get(key)) for each in (before, after))) for key in keys]
        )


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key and sign and value):
        raise click.UsageError(f"{text!r} is not KEY=VALUE: cursor=2024-01-01")
    return key, value


def _parsed(text: str) -> State:
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--state: not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise click.UsageError('--state: not a JSON object: \'{"cursor": "2024-01-01"}\'')
    return cast("State", parsed)


def _shown(key: str, value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    if key == "edge":
        return f"{sum(value.values())} rows were read at the cursor's edge"
    rest = [f"... and {len(value) - SHOWN} more"] if len(value) > SHOWN else []
    return "\n".join([*list(value)[:SHOWN], *rest])

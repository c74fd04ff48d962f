"""What a pipeline remembers between runs, changed by hand."""

from __future__ import annotations

from collections.abc import Callable

from errors import PivotalError
from etl.destinations import open_destination
from etl.incremental import earlier
from etl.lock import only_run_of
from etl.pipeline import Pipeline, StreamSource
from etl.stream import State
from events.envelope import new_id


def change_state(pipeline: Pipeline, change: Callable[[State], State]) -> tuple[State, State]:
    """Puts another state in the place of the one that the next run would start from.

    Args:
        pipeline: The pipeline.
        change: Makes the new state of the old one; `{}` is the beginning.

    Returns:
        The state before, and the one now.

    Raises:
        PivotalError: The pipeline runs, keeps no state, or could not go on from the new one.
    """
    if not getattr(pipeline.source, "incremental", None) and not isinstance(pipeline.source, StreamSource):
        raise PivotalError(
            f"pipeline {pipeline.name}: keeps no state: each run reads everything",
            hint="`incremental` in its source makes it read what is new",
        )
    with only_run_of(pipeline.name, wait=0):
        destination = open_destination(pipeline)
        before = destination.state() or {}
        after = change(before)
        _check(pipeline, after)
        with destination.begin(new_id()) as load:
            load.loaded()
            load.commit(after)
    return before, after


def with_values(state: State, values: dict[str, str]) -> State:
    """A state with other values.

    The rows at the edge of a cursor that is left behind say nothing of a new one, so they are forgotten: everything
    from the new cursor on is read again.

    Args:
        state: The state.
        values: Key -> new value.

    Raises:
        PivotalError: There is no such key, or its value is no text.
    """
    for key in values:
        if key != "cursor" and not isinstance(state.get(key), str):
            what = "is no single value" if key in state else "is not in the state"
            raise PivotalError(f"{key!r} {what}", hint="set `cursor`, or the whole of it with --state '{...}'")
    kept = {key: value for key, value in state.items() if not ("cursor" in values and key == "edge")}
    return {**kept, **values}


def _check(pipeline: Pipeline, state: State) -> None:
    """Finds now what the next run could not start from."""
    if isinstance(pipeline.source, StreamSource):
        _check_offsets(pipeline, state)
        return
    key, kind = ("files", dict) if pipeline.source.type == "file" else ("cursor", str)
    if wrong := sorted(set(state) - {key, "edge"}):
        raise PivotalError(f"pipeline {pipeline.name}: its state has no {wrong[0]!r}", hint=f"it has {key!r}")
    if not isinstance(state.get(key, kind()), kind):
        raise PivotalError(
            f"pipeline {pipeline.name}: {key!r} is not a {'text' if kind is str else 'mapping of files'}",
            hint="see `pivotal state show` for its form",
        )
    if kind is str and (cursor := state.get(key)):
        earlier(str(cursor), getattr(pipeline.source.incremental, "lag", None))


def _check_offsets(pipeline: Pipeline, state: State) -> None:
    topics = state.get("topics", {})
    known = isinstance(topics, dict) and all(map(_has_offsets, topics.values()))
    if set(state) - {"topics"} or not known:
        raise PivotalError(
            f"pipeline {pipeline.name}: not the state of a stream",
            hint='write {"topics": {"orders": {"offsets": {"0": 1234}}}}: partition -> the offset that is read next',
        )


def _has_offsets(topic: object) -> bool:
    offsets = topic.get("offsets") if isinstance(topic, dict) else None
    return isinstance(offsets, dict) and all(
        name.isdigit() and isinstance(offset, int) and offset >= 0 for name, offset in offsets.items()
    )

"""Partitions: parts of a pipeline's rows, by time (in UTC) or by value, each of which is run on its own.

A run for some partitions reads their rows and puts them in the place of those that the destination has of them, or
merges them. It leaves the incremental cursor alone. A source's database is asked for these rows only; whatever else is
read (a file has no index) is filtered out by the rules. A row whose column is NULL is in no partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from errors import PivotalError
from etl.pipeline import Partitions, Pipeline
from etl.quoting import literal, quoted

if TYPE_CHECKING:
    from etl.destinations.warehouse import Scope

DAY = timedelta(days=1)
_EXAMPLES = {"hour": "2024-01-05T13:00", "day": "2024-01-05", "week": "2024-01-01 (a Monday)", "month": "2024-01-01"}


@dataclass(frozen=True, slots=True)
class Partition:
    """The partitions that one run is about: a range of time, or some values.

    Args:
        by: The column, by its name after `map`.
        name: What the run is called: `2024-01-05`, `2024-01-01..2024-02-01`, `eu`.
        column: The column, by the source's name.
        moved: Whether the rules make another moment of a value, by its zone.
        since: The first moment, in UTC.
        until: The first moment after.
        values: The values, as text.
    """

    by: str
    name: str
    column: str
    moved: bool = False
    since: datetime = datetime.min  # noqa: DTZ901  (moments are in UTC, and the engine's have no zone)
    until: datetime = datetime.max  # noqa: DTZ901
    values: Sequence[str] = ()

    @property
    def predicate(self) -> str:
        """What `filter` would say of the rows."""
        column = quoted(self.by)
        if self.values:
            return f"CAST({column} AS VARCHAR) IN ({', '.join(map(literal, self.values))})"
        return f"{column} >= TIMESTAMP '{self.since}' AND {column} < TIMESTAMP '{self.until}'"

    @property
    def scope(self) -> Scope:
        """The rows as a warehouse knows them."""
        from etl.destinations.warehouse import Scope

        return Scope(self.by, values=self.values) if self.values else Scope(self.by, self.since, self.until)

    def asked(self, kind: str) -> tuple[str, list[str]]:
        """What the source's database is asked for: all of the rows, if need be with some more around them.

        Args:
            kind: The type of the column there.

        Returns:
            An operator (`in`, `between`, `between_text`) and its values, as text. What is text is a moment in any zone.
        """
        if self.values:
            return "in", list(self.values)
        kind = kind.lower()
        first, last = self.since, self.until
        if "timestamp" in kind and not self.moved:
            return "between", [f"{first}+00:00", f"{last}+00:00"]
        if not kind.startswith("date") or self.moved:
            first, last = first - DAY, last + DAY
        days = [str(first.date()), str(_whole_day(last))]
        return "between" if kind.startswith(("date", "timestamp")) else "between_text", days


def partition_of(pipeline: Pipeline, key: str) -> Partition:
    """One partition.

    Args:
        pipeline: The pipeline.
        key: Its value, or when it begins: `2024-01-05`, `2024-01-05T13:00`.

    Raises:
        PivotalError: The pipeline has no partitions, or not this one.
    """
    declared = pipeline.partitions
    if declared and declared.every:
        since = _begin(pipeline, declared, key)
        return _made(pipeline, declared, since, _following(declared, since))
    return partition_of_values(pipeline, [key])


def partition_of_values(pipeline: Pipeline, values: Sequence[str]) -> Partition:
    """Partitions by value.

    Raises:
        PivotalError: The pipeline has no such partitions.
    """
    declared = pipeline.partitions
    if declared is None:
        raise _none(pipeline)
    if declared.every:
        raise PivotalError(f"pipeline {pipeline.name}: has partitions by time", hint="say one, or from and to")
    for value in values:
        if value not in declared.values:
            raise PivotalError(
                f"pipeline {pipeline.name}: there is no partition {value!r}",
                hint=f"it has {', '.join(declared.values)}",
            )
    return Partition(declared.by, ",".join(values), _read(pipeline, declared.by), values=values)


def partition_range(pipeline: Pipeline, start: str, end: str) -> Partition:
    """All partitions in [start, end).

    Args:
        pipeline: The pipeline.
        start: When the first one begins.
        end: When the first one after them begins.

    Raises:
        PivotalError: The pipeline has no partitions by time, or none begins then.
    """
    declared = pipeline.partitions
    if declared is None:
        raise _none(pipeline)
    if not declared.every:
        raise PivotalError(
            f"pipeline {pipeline.name}: has partitions by value, which have no order",
            hint=f"say one of {', '.join(declared.values)}",
        )
    since, until = (_begin(pipeline, declared, key) for key in (start, end))
    if since >= until:
        raise PivotalError(
            f"pipeline {pipeline.name}: nothing is between {start} and {end}", hint="the end is the first one left out"
        )
    return _made(pipeline, declared, since, until)


def about(pipeline: Pipeline, partition: Partition) -> Pipeline:
    """The pipeline as a run for a partition runs it: without its cursor, and nothing else is read or replaced.

    A row that is appended again would be there twice, so `append` replaces the partition.

    Args:
        pipeline: The pipeline.
        partition: What the run is about.
    """
    source = pipeline.source.model_copy(
        update={"incremental": type(pipeline.source).model_fields["incremental"].default}
    )
    filters = [*pipeline.transform.filter, partition.predicate]
    write = "merge" if pipeline.destination.write == "merge" else "replace"
    return pipeline.model_copy(
        update={
            "source": source,
            "transform": pipeline.transform.model_copy(update={"filter": filters}),
            "destination": pipeline.destination.model_copy(update={"write": write}),
        }
    )


def _made(pipeline: Pipeline, declared: Partitions, since: datetime, until: datetime) -> Partition:
    one = until == _following(declared, since)
    name = _named(declared, since) if one else f"{_named(declared, since)}..{_named(declared, until)}"
    conversion = pipeline.transform.convert.get(declared.by)
    moved = conversion is not None and conversion.timezone is not None
    return Partition(declared.by, name, _read(pipeline, declared.by), moved, since, until)


def _read(pipeline: Pipeline, by: str) -> str:
    """The name that the source has for a column."""
    return next((old for old, new in pipeline.transform.map.items() if new == by), by)


def _whole_day(moment: datetime) -> date:
    return moment.date() + DAY if moment.time() != moment.min.time() else moment.date()


def _begin(pipeline: Pipeline, declared: Partitions, key: str) -> datetime:
    """When the partition begins that a key names."""
    try:
        begin = datetime.fromisoformat(key)
    except ValueError:
        begin = None
    if begin is None or begin.tzinfo or not _begins(declared.every, begin):
        raise PivotalError(
            f"pipeline {pipeline.name}: no {declared.every} begins at {key!r}",
            hint=f"write it like this, in UTC: {_EXAMPLES[declared.every or 'day']}",
        )
    if declared.start and begin.date() < declared.start:
        raise PivotalError(
            f"pipeline {pipeline.name}: {key} is before the first partition",
            hint=f"`start: {declared.start}` says where partitions begin",
        )
    return begin


def _following(declared: Partitions, moment: datetime) -> datetime:
    """When the partition after the one of this moment begins."""
    match declared.every:
        case "hour":
            return moment + timedelta(hours=1)
        case "day":
            return moment + DAY
        case "week":
            return moment + 7 * DAY
    return (moment.replace(day=1) + 32 * DAY).replace(day=1)


def _begins(every: str | None, moment: datetime) -> bool:
    """Whether an hour, a day, a week or a month begins at a moment."""
    if every == "hour":
        return not (moment.minute or moment.second or moment.microsecond)
    first = {"week": moment.weekday() == 0, "month": moment.day == 1}.get(every or "", True)
    return first and moment.time() == moment.min.time()


def _named(declared: Partitions, moment: datetime) -> str:
    return moment.isoformat(timespec="minutes") if declared.every == "hour" else str(moment.date())


def _none(pipeline: Pipeline) -> PivotalError:
    return PivotalError(
        f"pipeline {pipeline.name}: has no partitions",
        hint="declare them: `partitions: {by: created_at, every: day, start: 2024-01-01}`",
    )

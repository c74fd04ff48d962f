"""What a table of landed events is: a `Row` class, whose fields are the columns.

A row is made of one event alone and carries a version; of two rows with the same key the higher version stays. So
events may come twice, late, in any order and in any portions: the tables end up the same. The price: a column tells
what the winning event told, never a sum over events (counts of opens would grow with every redelivery).

Light on purpose (pydantic only): Dagster's load reads the columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Self, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic import StringConstraints as Length

from errors import PivotalError
from events.envelope import Event, reasons

_TYPES = {str: "text", int: "bigint", bool: "boolean", datetime: "timestamp with time zone"}


class ProjectionError(PivotalError):
    """An event is not what its type promises, so it cannot become a row."""


def _storable(value: str) -> str:
    """Refuses what a warehouse would refuse later, for all rows of a transaction: NUL and lone surrogates."""
    if "\x00" in value:
        raise ValueError("has a NUL character, which databases do not store in text")
    value.encode()
    return value


def _moment(value: object) -> object:
    """Providers send seconds since 1970; other values are left to pydantic, which refuses what is no datetime."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(f"not a time in seconds since 1970: {error}") from None


Text = Annotated[str, AfterValidator(_storable)]
Id = Annotated[str, Length(min_length=1, max_length=255), AfterValidator(_storable)]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Moment = Annotated[datetime, BeforeValidator(_moment)]


class Row(BaseModel):
    """One row of a table, read strictly from one event's `{id, type, at, data}`. Times are in UTC."""

    model_config = ConfigDict(strict=True, frozen=True, defer_build=True)  # Dagster's load only looks at fields

    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]
    sources: ClassVar[tuple[str, ...]]

    event_id: Id = Field(validation_alias="id", description="The provider's id of the event that told this.")
    event_at: Moment = Field(validation_alias="at", description="When that event happened.")

    @classmethod
    def of(cls, event: Event, **known: object) -> Self:
        """The row that an event tells of.

        Args:
            event: The event.
            known: What the projection knows beside it.

        Raises:
            ProjectionError: A field is missing or has another type.
        """
        told = {"id": event.metadata.dedupe_key, "type": event.type, "at": event.timestamp, "data": event.data}
        try:
            return cls.model_validate({**told, **known})
        except ValidationError as error:
            raise ProjectionError(f"{event.type} does not fit {cls.table}: {reasons(error)}") from None

    @property
    def version(self) -> str:
        """Grows with what the row tells; texts of digits and a-f, all of one length, compare alike everywhere."""
        raise NotImplementedError

    def record(self) -> dict[str, object]:
        """Column -> value."""
        return {**dict(self), "version": self.version}


def columns(row: type[Row]) -> Mapping[str, tuple[str, str]]:
    """A table's columns, its key first and where the row comes from last: name -> (type, description).

    Args:
        row: The table.
    """
    kinds = get_type_hints(row)
    names = dict.fromkeys((*row.key, *row.__annotations__, *row.model_fields))
    told = {name: (_type(kinds[name]), row.model_fields[name].description or "") for name in names}
    return {**told, "version": ("text", "Of two rows with one key, the one whose version is higher stays.")}


def rank(event_at: datetime, *ranks: int, event_id: str, first: int = 0) -> str:
    """A version: `first`, then the second, then `ranks`; last, a digest of the id, so that no two events tie.

    Args:
        event_at: When the event happened; providers give whole seconds.
        ranks: What orders events of one second, 0 to 999 each.
        event_id: The event's id.
        first: What counts more than time, 0 to 99.
    """
    return f"{first:02d}{int(event_at.timestamp()):012d}{''.join(f'{min(n, 999):03d}' for n in ranks)}{tie(event_id)}"


def tie(event_id: str) -> str:
    """The end of a version: arbitrary, but the same in every replay."""
    return hashlib.sha256(event_id.encode()).hexdigest()[:16]


def _type(annotation: object) -> str:
    """`text` of `str` and of `str | None`."""
    return next(_TYPES[kind] for kind in (annotation, *get_args(annotation)) if kind in _TYPES)

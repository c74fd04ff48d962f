"""Typed events: what `data` holds, as a class, through all the versions that its shape has had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from errors import PivotalError
from events.cause import new_event
from events.envelope import Event, reasons

Upcast = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Makes the data of one version of that of the version before; leaves what it is given as it is."""


class EventData(BaseModel):
    """What events of one type hold. Fields that the class does not know are passed over.

    A class says its type and, once its shape has changed, its version and how to get there from the versions before:

        class OrderPaid(EventData, type="shop.order.paid", version=2, upcasts={1: in_cents}):
            order_id: str
            cents: int

    Raises:
        TypeError: Where the class is declared: its upcasts do not lead, one by one, to its version.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    event_type: ClassVar[str] = ""
    event_version: ClassVar[int] = 1
    upcasts: ClassVar[Mapping[int, Upcast]] = {}

    def __init_subclass__(
        cls,
        *,
        type: str = "",  # noqa: A002  (the envelope's own word)
        version: int = 1,
        upcasts: Mapping[int, Upcast] | None = None,
    ) -> None:
        """Takes what the class says of itself."""
        super().__init_subclass__()
        cls.event_type, cls.event_version, cls.upcasts = type, version, upcasts or {}
        if sorted(cls.upcasts) != list(range(version - len(cls.upcasts), version)) or 0 in cls.upcasts:
            raise TypeError(f"{cls.__name__}: upcasts go from a version to the next, the last from {version - 1}")

    @classmethod
    def of(cls, event: Event) -> Self:
        """What an event holds, brought to this version step by step.

        Raises:
            PivotalError: It is of another type, of a version that cannot be read, or not what its version promises.
        """
        if event.type != cls.event_type:
            raise PivotalError(
                f"{cls.__name__} is what {cls.event_type!r} holds, and event {event.id} is {event.type!r}"
            )
        data: Mapping[str, Any] = event.data
        for version in range(event.version, cls.event_version):
            data = cls._upcast(event, version, data)
        if event.version > cls.event_version:
            raise _unreadable(
                event, f"this program knows versions up to {cls.event_version}", "bring this program up to date"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise _unreadable(event, f"does not fit {cls.__name__}: {reasons(error)}") from None

    def event(
        self,
        aggregate: tuple[str, str],
        *,
        source: str,
        dedupe_key: str | None = None,
        timestamp: datetime | None = None,
    ) -> Event:
        """An event that holds this, and knows its cause.

        Args:
            aggregate: As in `new_event`.
            source: As in `new_event`.
            dedupe_key: As in `new_event`.
            timestamp: As in `new_event`.
        """
        return new_event(
            self.event_type,
            aggregate,
            self.model_dump(mode="json"),
            source=source,
            dedupe_key=dedupe_key,
            timestamp=timestamp,
            version=self.event_version,
        )

    @classmethod
    def _upcast(cls, event: Event, version: int, data: Mapping[str, Any]) -> Mapping[str, Any]:
        if version not in cls.upcasts:
            raise _unreadable(
                event, f"{cls.__name__} has no upcast from version {version}", "add it to the class's upcasts"
            )
        try:
            return cls.upcasts[version](data)
        except Exception as error:
            raise _unreadable(event, f"the upcast from version {version} failed with {type(error).__name__}") from error


def _unreadable(event: Event, why: str, hint: str | None = None) -> PivotalError:
    return PivotalError(f"event {event.id} ({event.type}, version {event.version}) cannot be read: {why}", hint=hint)

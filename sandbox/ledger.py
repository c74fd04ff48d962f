"""What a Stripe account is made of: objects by kind and id; every change of one is an event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from sandbox import listing
from sandbox.objects import API_VERSION, Record, whole
from sandbox.parameters import Form
from sandbox.refusals import no_such
from sandbox.world import Clock, Ids

_PREFIXES = {
    "customer": "cus",
    "event": "evt",
    "invoice": "in",
    "invoiceitem": "ii",
    "line_item": "il",
    "payment_method": "pm",
    "price": "price",
    "product": "prod",
    "subscription": "sub",
    "subscription_item": "si",
}


class Ledger:
    """The account's objects, and what is common to all changes of them.

    Args:
        clock: Tells the time.
        ids: Gives ids.
        publish: Takes each new event.
    """

    def __init__(self, clock: Clock, ids: Ids, publish: Callable[[Record], None]) -> None:
        self._clock = clock
        self._ids = ids
        self._publish = publish
        self._objects: dict[str, dict[str, Record]] = {kind: {} for kind in _PREFIXES}
        self._request: Record = {"id": None, "idempotency_key": None}
        self._observed = True

    @contextmanager
    def request(self, request_id: str, idempotency_key: str | None) -> Iterator[None]:
        """Within this block, events say that this request caused them."""
        before, self._request = self._request, {"id": request_id, "idempotency_key": idempotency_key}
        try:
            yield
        finally:
            self._request = before

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """Within this block nothing is an event: it is history, and Stripe keeps events for 30 days only."""
        self._observed = False
        try:
            yield
        finally:
            self._observed = True

    # --- reading ------------------------------------------------------------------------------------------------

    def get(self, kind: str, id_: str) -> Record:
        """The object that a URL names."""
        return self._find(kind, id_, "id")

    def page(self, kind: str, form: Form) -> Record:
        """One page of the kind's objects, newest first."""
        return listing.page(kind, self._objects[kind].values(), form)

    def expanded(self, record: Record, paths: list[str]) -> Record:
        """A copy of the object with the ids at these paths replaced by what they name."""
        return listing.expanded(record, paths, self._by_id)

    # --- for the operations ---------------------------------------------------------------------------------------

    def _new(self, kind: str) -> str:
        return f"{_PREFIXES[kind]}_{self._ids.new(kind, 14 if kind in {'customer', 'product'} else 24)}"

    def _find(self, kind: str, id_: str, param: str) -> Record:
        if id_ not in self._objects[kind]:
            raise no_such(kind, id_, param=param)
        return self._objects[kind][id_]

    def _by_id(self, id_: str) -> Record | None:
        return next((known[id_] for known in self._objects.values() if id_ in known), None)

    def _keep(self, record: Record, event: str) -> Record:
        self._objects[record["object"]][record["id"]] = record
        self._emit(event, record)
        return record

    def _change(self, record: Record, event: str, **changes: Any) -> Record:  # noqa: ANN401  (JSON)
        previous = {name: record[name] for name, value in changes.items() if record[name] != value}
        record.update(changes)
        self._emit(event, record, previous if event.endswith(".updated") else None)
        return record

    def _emit(self, kind: str, record: Record, previous: Record | None = None) -> None:
        if not self._observed:
            return
        data = {"object": record} | ({} if previous is None else {"previous_attributes": previous})
        event = whole(
            "event",
            id=self._new("event"),
            type=kind,
            created=self._clock.now(),
            api_version=API_VERSION,
            data=deepcopy(data),
            pending_webhooks=0,
            request=self._request,
        )
        self._objects["event"][event["id"]] = event
        self._publish(event)


def fields(form: Form, *names: str) -> Form:
    """Those of the form's values; an empty one unsets."""
    return {name: None if form[name] == "" else form[name] for name in names if name in form}


def merged(metadata: Record, form: Form) -> Record:
    """An object's metadata with those of the form; an empty value unsets a key, an empty text all of them."""
    if form.get("metadata") == "":
        return {}
    return {name: value for name, value in {**metadata, **form.get("metadata", {})}.items() if value != ""}

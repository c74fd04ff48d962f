"""How Stripe lists its objects: newest first, filtered, page by page from a cursor; and how it expands ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any

from sandbox.objects import Record, listed
from sandbox.parameters import Form
from sandbox.refusals import Refused, no_such

PAGING = frozenset({"limit", "starting_after", "ending_before", "expand"})
"""The parameters that every list has; all others are filters."""

_RANGES: dict[str, Callable[[int, int], bool]] = {
    "gt": lambda created, bound: created > bound,
    "gte": lambda created, bound: created >= bound,
    "lt": lambda created, bound: created < bound,
    "lte": lambda created, bound: created <= bound,
}
_FILTERS: dict[tuple[str, str], Callable[[Record, Any], bool]] = {
    ("event", "type"): lambda event, pattern: fnmatchcase(event["type"], pattern),
    ("event", "types"): lambda event, types: event["type"] in types,
    ("invoice", "subscription"): lambda invoice, wanted: subscription_of(invoice) == wanted,
    ("subscription", "price"): lambda subscription, wanted: wanted in _prices_of(subscription),
    ("subscription", "status"): lambda subscription, status: status in {"all", subscription["status"]},
}


def page(kind: str, records: Iterable[Record], form: Form) -> Record:
    """One page of the records that the form's filters let through, from its cursor on."""
    if {"type", "types"} <= form.keys():
        raise Refused("You may only specify one of these parameters: type, types.", param="type")
    everything = sorted(records, key=lambda each: int(each.get("created", 0)))[::-1]
    limit = _limit(form)
    after, before = _cursor(kind, form, [each["id"] for each in everything])
    wanted = [each for each in everything[after:before] if _passes(kind, each, form)]
    shown = wanted[-limit:] if "ending_before" in form else wanted[:limit]
    return listed(f"/v1/{kind}s", shown, has_more=len(wanted) > limit)


def expanded(record: Record, paths: list[str], find: Callable[[str], Record | None]) -> Record:
    """A copy of the record with the ids at these paths (`customer`, `data.latest_invoice`) replaced by objects.

    Args:
        record: An object or a list of objects.
        paths: Where to replace.
        find: Gives the object of an id.
    """
    record = deepcopy(record)
    for path in paths:
        if not _expand(record, path.split("."), find):
            raise Refused(f"This property cannot be expanded ({path}).", param="expand")
    return record


def subscription_of(invoice: Record) -> str | None:
    """Where an invoice has its subscription's id, if it has one, since API version 2025-03-31."""
    return invoice["parent"] and str(invoice["parent"]["subscription_details"]["subscription"])


def _limit(form: Form) -> int:
    limit = int(form.get("limit", 10))
    if 1 <= limit <= 100:
        return limit
    bound = "less than or equal to 100" if limit > 100 else "greater than or equal to 1"
    message = f"This value must be {bound} (it currently is '{limit}')."
    raise Refused(message, param="limit", code="parameter_invalid_integer")


def _cursor(kind: str, form: Form, ids: list[str]) -> tuple[int | None, int | None]:
    given = {name: form[name] for name in ("starting_after", "ending_before") if name in form}
    if len(given) == 2:
        raise Refused("Received both starting_after and ending_before parameters. Please pass in only one.")
    for name, id_ in given.items():
        if id_ not in ids:
            raise no_such(kind, id_, param=name)
    places = {name: ids.index(id_) for name, id_ in given.items()}
    after = places.get("starting_after")
    return (None if after is None else after + 1), places.get("ending_before")


def _passes(kind: str, record: Record, form: Form) -> bool:
    if record.get("deleted"):
        return False
    if kind == "subscription" and "status" not in form and record["status"] == "canceled":
        return False
    wanted = {name: value for name, value in form.items() if name not in PAGING}
    created = wanted.pop("created", {})
    bounds = created if isinstance(created, dict) else {"gte": created, "lte": created}
    return all(_RANGES[name](record["created"], bound) for name, bound in bounds.items()) and all(
        _FILTERS[kind, name](record, value) if (kind, name) in _FILTERS else record[name] == value
        for name, value in wanted.items()
    )


def _prices_of(subscription: Record) -> list[str]:
    return [item["price"]["id"] for item in subscription["items"]["data"]]


def _expand(place: Any, steps: list[str], find: Callable[[str], Record | None]) -> bool:  # noqa: ANN401  (JSON)
    if isinstance(place, list):
        return all(_expand(each, steps, find) for each in place)
    step, *rest = steps
    if not isinstance(place, dict) or step not in place:
        return False
    if isinstance(place[step], str):
        found = find(place[step])
        if found is None:
            return False
        place[step] = deepcopy(found)
    return not rest or place[step] is None or _expand(place[step], rest, find)

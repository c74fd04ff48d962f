"""APIs that are known by name: `service: stripe` and `resource: invoices` stand for all that a source says of them.

What is known is data, in the words of the pipeline file; reading stays the API source's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True, slots=True)
class Service:
    """How a service is read.

    Args:
        url: Where its resources are; `{}` is the resource.
        keys: Keys of an `ApiSource`.
        resources: What can be read -> query parameters that it takes to get all of it.
        cursor: The one field that the service can be asked for what is new by.
        param: The parameter that takes it.
    """

    url: str
    keys: Mapping[str, Any]
    resources: Mapping[str, Mapping[str, Any]]
    cursor: str
    param: str


def _all_of(*names: str) -> dict[str, Mapping[str, Any]]:
    return {name: {} for name in names}


SERVICES: Mapping[str, Service] = {
    "stripe": Service(
        url="${PIVOTAL_STRIPE_API_BASE}/v1/{}",
        keys={
            "auth": {"type": "bearer", "token": "${PIVOTAL_STRIPE_API_KEY}"},
            "headers": {"Stripe-Version": "2026-10-28.endive"},
            "records": "data",
            "pagination": {"type": "cursor", "param": "starting_after", "path": "data.-1.id", "more": "has_more"},
            "params": {"limit": 100},
        },
        resources=_all_of(
            "balance_transactions", "charges", "credit_notes", "customers", "disputes", "events", "invoices",
            "payment_intents", "payouts", "prices", "products", "refunds",
        ) | {"subscriptions": {"status": "all"}},
        cursor="created",
        param="created[gte]",
    ),
    "sendgrid": Service(
        url="${PIVOTAL_SENDGRID_API_BASE}/v3/suppression/{}",
        keys={
            "auth": {"type": "bearer", "token": "${PIVOTAL_SENDGRID_API_KEY}"},
            "headers": {},
            "pagination": {"type": "offset", "limit": 500},
            "params": {},
        },
        resources=_all_of("blocks", "bounces", "invalid_emails", "spam_reports", "unsubscribes"),
        cursor="created",
        param="start_time",
    ),
}  # fmt: skip

_OWN = frozenset({"url", "records", "pagination", "body", "for_each"})
"""What is the service's to say."""


class NotKnownError(ValueError):
    """A service is not known like this.

    Args:
        message: What is wrong, and the way to mend it.
        key: The key that is wrong.
    """

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


def spelled_out(source: Mapping[str, Any]) -> dict[str, Any]:
    """A source that names a service, with all that this stands for. What it says itself counts.

    Args:
        source: The source as the file has it, with `service` or `resource`.

    Raises:
        NotKnownError: There is no such service or resource, or the source says what is the service's to say.
    """
    if source.get("service") is None:
        raise NotKnownError(f"without `service`; say whose it is: {', '.join(SERVICES)}", "resource")
    name, resource = str(source["service"]), source.get("resource")
    service = _known(name, SERVICES, "service", "a service that is known by name")
    if resource is None:
        raise NotKnownError(f"without `resource`; say what is read: {', '.join(service.resources)}", "service")
    params = _known(str(resource), service.resources, "resource", f"a resource of {name}")
    if beside := sorted(_OWN & source.keys()):
        raise NotKnownError(f"beside `service`, which says it itself; leave out one of them, `{beside[0]}`", beside[0])
    keys = {**service.keys, "url": service.url.replace("{}", str(resource)), **source}
    for merged, more in (("headers", {}), ("params", params)):
        keys[merged] = {**service.keys[merged], **more, **(source.get(merged) or {})}
    if isinstance(incremental := source.get("incremental"), dict):
        if incremental.get("cursor", service.cursor) != service.cursor:
            raise NotKnownError(
                f"a cursor that {name} cannot be asked by; write cursor: {service.cursor}", "incremental"
            )
        keys["incremental"] = {"cursor": service.cursor, "param": service.param, **incremental}
    return keys


def _known(name: str, names: Mapping[str, Any], key: str, what: str) -> Any:  # noqa: ANN401  (whatever it is)
    if name in names:
        return names[name]
    near = get_close_matches(name, names, 1)
    raise NotKnownError(f"not {what}; write {near[0] if near else ', '.join(names)}", key)

"""Who gets no mail: SendGrid's suppression lists.

They are named as in the table `email_suppressions`: `bounces`, `blocks`, `spam_reports`, `invalid_emails`,
`unsubscribes` (from everything), and `group:<id>` (from one kind of mail).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, TypedDict
from urllib.parse import quote

from integrations.calls import NOT_SENT
from integrations.sendgrid.client import Client, batched
from integrations.sendgrid.errors import SendGridIntegrationError

_OWN = ("bounces", "blocks", "spam_reports", "invalid_emails")
"""The lists that SendGrid alone puts addresses on."""
_GLOBAL = "unsubscribes"
_PAGE = 500
_ADDRESSES = 1000


class Suppression(TypedDict, total=False):
    """An address that gets no mail; a group's list tells the address alone."""

    email: str
    created: int
    reason: str
    status: str
    ip: str


class Suppressions:
    """SendGrid's suppressions. Methods raise `SendGridIntegrationError` if SendGrid refuses or cannot be reached."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(
        self, suppression: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[Suppression]:
        """Every address on a list; read page by page.

        Args:
            suppression: The list.
            since: Without those from before; groups do not tell when.
            until: Without those from after.
        """
        if (group := _group(suppression)) is not None:
            told = self._client.ask("suppressions.list", "get", group).data
            yield from (Suppression(email=email) for email in told)
            return
        between = {"start_time": since, "end_time": until}
        asked: dict[str, Any] = {name: int(each.timestamp()) for name, each in between.items() if each is not None}
        asked |= {"limit": _PAGE, "offset": 0}
        while True:
            page = self._client.ask("suppressions.list", "get", _path(suppression), query=asked).data
            yield from page
            if len(page) < _PAGE:
                return
            asked["offset"] += _PAGE

    def add(self, suppression: str, emails: Iterable[str]) -> None:
        """Puts addresses on a list; those that are on it stay.

        Args:
            suppression: `unsubscribes`, or a group's; the others are SendGrid's own.
            emails: The addresses.
        """
        path = _ours(suppression)
        if path is None:
            raise _wrong("suppressions.add", suppression, f"addresses can be added to {_GLOBAL} and to groups only")
        for some in batched(emails, _ADDRESSES):
            self._client.ask(
                "suppressions.add", "post", path, body={"recipient_emails": some}, holds="recipient_emails"
            )
            self._tell("suppression.added", suppression, len(some))

    def remove(self, suppression: str, emails: Iterable[str]) -> None:
        """Takes addresses off a list: they get mail again. For who asked for it only.

        Args:
            suppression: The list.
            emails: The addresses.
        """
        one_by_one = _ours(suppression)
        for some in batched(emails, _ADDRESSES):
            if one_by_one is None:
                path = _path(suppression, "suppressions.remove")
                self._client.ask("suppressions.remove", "delete", path, body={"emails": some})
            else:
                for email in some:
                    self._client.ask("suppressions.remove", "delete", f"{one_by_one}/{quote(email, safe='')}")
            self._tell("suppression.removed", suppression, len(some))

    def _tell(self, what: str, suppression: str, addresses: int) -> None:
        self._client.tell(what, ("suppression", suppression), {"addresses": addresses})


def _path(suppression: str, operation: str = "suppressions.list") -> str:
    if suppression not in {*_OWN, _GLOBAL}:
        raise _wrong(operation, suppression, f"there are {', '.join(_OWN)}, {_GLOBAL} and group:<id>")
    return f"suppression/{suppression}"


def _ours(suppression: str) -> str | None:
    """The path of a list that not SendGrid alone puts addresses on."""
    return "asm/suppressions/global" if suppression == _GLOBAL else _group(suppression)


def _group(suppression: str) -> str | None:
    kind, _, number = suppression.partition(":")
    return f"asm/groups/{number}/suppressions" if kind == "group" and number.isdecimal() else None


def _wrong(operation: str, suppression: str, hint: str) -> SendGridIntegrationError:
    return SendGridIntegrationError(
        f"SendGrid {operation}: no list for this: {suppression!r}", operation=operation, code=NOT_SENT, hint=hint
    )

"""What was sent before, by the event log: so that a rerun sends nothing twice.

A mail that SendGrid took is there as `email.sent`, by its operation's key. One that it may have taken, without an
answer, is there as `email.doubtful`; whether it did, its webhooks tell later, for they carry the key, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from integrations.calls import NOT_SENT
from integrations.mail_names import recipient_of, sent_id
from integrations.sendgrid.client import Client
from integrations.sendgrid.errors import SendGridIntegrationError
from integrations.sendgrid.message import Message

if TYPE_CHECKING:
    from events.envelope import Event
    from events.log import EventLog

DOUBTFUL = "doubtful"
"""An earlier try may have sent the mail, and SendGrid has told nothing of it yet."""

_SENT, _DOUBTFUL = "email.sent", "email.doubtful"
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Part:
    """A message, or the part of one that fits into a request.

    Args:
        index: The message's place among all.
        key: The operation's key.
        message: What is sent.
    """

    index: int
    key: str
    message: Message


class Past:
    """What is known of mails that were sent, or may have been; nothing without an event log."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def of(self, parts: Iterable[Part]) -> dict[str, str | SendGridIntegrationError]:
        """What is not to be sent again.

        Returns:
            Operation key -> message id; or why it is neither sent nor to be sent.

        Raises:
            EventLogError: The log cannot be read.
        """
        log = self._client.events
        if log is None:
            return {}
        known: dict[str, str | SendGridIntegrationError] = {}
        doubts: dict[str, tuple[Part, int]] = {}
        for part in parts:
            if (sent := _find(log, part.key, _SENT)) is not None:
                alike = set(sent.data["recipients"]) == {*_names(sent.aggregate_id, part.message)}
                known[part.key] = sent.aggregate_id if alike else _of_others(sent.aggregate_id)
            elif (doubt := _find(log, f"{part.key}/doubtful", _DOUBTFUL)) is not None:
                doubts[part.key] = (part, int(doubt.data["after"]))
        return known | self._settled(log, doubts) if doubts else known

    def tell(self, message_id: str, parts: Iterable[Part]) -> None:
        """That SendGrid took mails: the events that `email_messages` has their first rows from, without addresses."""
        self._client.tell_each(_SENT, [(("message", message_id), _facts(message_id, part), part.key) for part in parts])

    @contextmanager
    def noting_doubts(self, parts: Iterable[Part]) -> Iterator[None]:
        """Within this block mails are sent; if it is left without knowing whether they were, that is told."""
        log = self._client.events
        after = log.head() if log else 0
        try:
            yield
        except BaseException as error:  # an interrupt, too, leaves it open
            if log and getattr(error, "doubtful", True):
                doubts = [(("operation", part.key), {"after": after}, f"{part.key}/doubtful") for part in parts]
                self._client.tell_each(_DOUBTFUL, doubts)
            raise

    def _settled(
        self, log: EventLog, doubts: Mapping[str, tuple[Part, int]]
    ) -> dict[str, str | SendGridIntegrationError]:
        heard = _heard(log, min(after for _, after in doubts.values()))
        for key in heard.keys() & doubts.keys():
            self.tell(heard[key], [doubts[key][0]])
        return {key: heard.get(key) or _in_doubt() for key in doubts}


def _find(log: EventLog, key: str, what: str) -> Event | None:
    found = (recorded.event for recorded in log.find(key))
    return next((event for event in found if event.type == f"pivotal.sendgrid.{what}"), None)


def _heard(log: EventLog, after: int) -> dict[str, str]:
    """Operation key -> message id, of all that SendGrid told since."""
    heard: dict[str, str] = {}
    while recorded := log.read(after, _PAGE, types=("sendgrid.*",)):
        for told in (one.event.data for one in recorded):
            if "operation_key" in told and "sg_message_id" in told:
                heard[str(told["operation_key"])] = sent_id(str(told["sg_message_id"]))
        after = recorded[-1].sequence
    return heard


def _facts(message_id: str, part: Part) -> dict[str, object]:
    return {
        "message_id": message_id,
        "operation_key": part.key,
        "template_id": part.message.template_id,
        "categories": [*part.message.categories],
        "recipients": _names(message_id, part.message),
    }


def _names(message_id: str, message: Message) -> list[str]:
    return [recipient_of(message_id, address) for address in message.recipients]


def _of_others(message_id: str) -> SendGridIntegrationError:
    return SendGridIntegrationError(
        f"SendGrid mail.send: this operation id was used before, for {message_id} to other addresses",
        operation="mail.send",
        code=NOT_SENT,
        hint="give every doing an operation id of its own",
    )


def _in_doubt() -> SendGridIntegrationError:
    return SendGridIntegrationError(
        "SendGrid mail.send: an earlier try may have sent it, and SendGrid has told nothing of it yet",
        operation="mail.send",
        code=DOUBTFUL,
        hint="run it again when SendGrid's webhooks have come; if it was not sent, give it another operation id",
        retryable=True,
    )

"""SendGrid's events, and ours of mails that it took -> `email_messages` and `email_suppressions`.

A mail's first row is made when SendGrid takes it (`sent`), of our own event; SendGrid's events then tell how far it
came, in the same row. Our event holds no address, so rows are known by message id and a pseudonym of the recipient.

A message's status only moves forward: the furthest one wins, whenever its event comes; among events of one status the
latest. `bounce` stands after `delivered`, for a mail server may accept first and refuse later; such late bounces may
come without the message's id and then tell of the address alone. Opens and clicks are not counted: a count over
at-least-once deliveries would need every event's id beside the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, AliasPath, Field

from events.envelope import Event
from integrations.mail_names import recipient_of, sent_id
from projections.tables import Id, ProjectionError, Row, Text, rank

SENT = "pivotal.sendgrid.email.sent"
"""The type of the event that SendGrid took a mail of ours (`integrations.sendgrid`)."""

_STATUSES = {
    "sent": 0, "processed": 1, "deferred": 2, "delivered": 3, "dropped": 4, "bounce": 5, "open": 6, "click": 7,
    "unsubscribe": 8, "group_unsubscribe": 8, "spamreport": 9,
}  # fmt: skip

_LISTS = {"bounce": "bounces", "spamreport": "spam_reports", "unsubscribe": "unsubscribes"}
_GROUP = {"group_unsubscribe": True, "group_resubscribe": False}

PATTERNS = (SENT, *(f"sendgrid.{kind}" for kind in dict.fromkeys((*_STATUSES, *_LISTS, *_GROUP)) if kind != "sent"))
"""The types of the events that become rows."""


def project(event: Event) -> Sequence[Row]:
    """The rows that an event tells of; none for events of other things.

    Raises:
        ProjectionError: The event is not what its type promises.
    """
    if event.type == SENT:
        return _sent(event)
    kind = event.type.removeprefix("sendgrid.")
    return [*_message(kind, event), *_suppression(kind, event)]


def _sent(event: Event) -> Sequence[Row]:
    recipients = event.data.get("recipients")
    if not isinstance(recipients, list):
        raise ProjectionError(f"{event.type} does not fit email_messages: data.recipients: not a list")
    return [EmailMessage.of(event, status="sent", recipient=recipient) for recipient in recipients]


def _message(kind: str, event: Event) -> Sequence[Row]:
    tells_of_address = kind in _LISTS or kind in _GROUP
    if kind not in _STATUSES or (tells_of_address and "sg_message_id" not in event.data):
        return []
    row = EmailMessage.of(event, status=kind, recipient="-")
    if row.email is None:
        raise ProjectionError(f"{event.type} does not fit email_messages: data.email: Field required")
    return [row.model_copy(update={"recipient": recipient_of(row.message_id, row.email)})]


def _suppression(kind: str, event: Event) -> Sequence[Row]:
    if kind in _GROUP:
        return [EmailSuppression.of(event, suppression=_group(event), active=_GROUP[kind])]
    # A blocked message says nothing of the next one: SendGrid goes on sending to that address.
    if kind in _LISTS and event.data.get("type") != "blocked":
        return [EmailSuppression.of(event, suppression=_LISTS[kind], active=True)]
    return []


def _group(event: Event) -> str:
    number = event.data.get("asm_group_id")
    if not isinstance(number, int):
        raise ProjectionError(f"{event.type} does not fit email_suppressions: data.asm_group_id: not a number")
    return f"group:{number}"


Address = Annotated[Id, AfterValidator(str.lower)]


class EmailMessage(Row):
    """One row per message and recipient: how far it came."""

    table = "email_messages"
    key = ("message_id", "recipient")
    sources = ("sendgrid",)

    message_id: Annotated[Id, AfterValidator(sent_id)] = Field(
        validation_alias=AliasChoices(AliasPath("data", "sg_message_id"), AliasPath("data", "message_id")),
        description="X-Message-Id, as sending returned it.",
    )
    recipient: Id = Field(description="What the recipient is called until SendGrid tells the address.")
    email: Address | None = Field(
        None, validation_alias=AliasPath("data", "email"), description="Recipient, lower case; none while `sent`."
    )
    status: Id = Field(description="The furthest status: sent, processed, deferred, delivered, dropped, bounce, ...")
    operation_key: Text | None = Field(
        None,
        validation_alias=AliasPath("data", "operation_key"),
        description="The key of the operation that sent it, if it was ours.",
    )
    reason: Text | None = Field(
        None,
        validation_alias=AliasChoices(AliasPath("data", "reason"), AliasPath("data", "response")),
        description="What the receiving server, or SendGrid, said.",
    )
    bounce_type: Text | None = Field(
        None, validation_alias=AliasPath("data", "type"), description="bounce (for good) or blocked (this time)."
    )

    @property
    def version(self) -> str:
        """By status, then second."""
        return rank(self.event_at, first=_STATUSES[self.status], event_id=self.event_id)


class EmailSuppression(Row):
    """Addresses that get no mail, and why; one row per address and list."""

    table = "email_suppressions"
    key = ("email", "suppression")
    sources = ("sendgrid",)

    email: Address = Field(validation_alias=AliasPath("data", "email"), description="Address, lower case.")
    suppression: Id = Field(description="bounces, spam_reports, unsubscribes, or group:<id> of a suppression group.")
    active: bool = Field(description="False once the address subscribed to the group again.")
    reason: Text | None = Field(
        None, validation_alias=AliasPath("data", "reason"), description="What the receiving server said."
    )

    @property
    def version(self) -> str:
        """By second; within one, not to write is the safer error."""
        return rank(self.event_at, int(self.active), event_id=self.event_id)

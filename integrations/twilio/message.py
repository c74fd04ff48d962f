"""Messages: one to send, and one as Twilio has it. Their numbers and texts do not show in `repr`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Self

TRIAL_PREFIX = "Sent from your Twilio trial account - "
"""What Twilio puts before each text of a trial account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sms:
    """A message to send: an SMS, or with media an MMS.

    Args:
        to: The recipient's number, in E.164: `+14155550100`.
        sender: A number of the account in E.164, a short code, or a name where the country allows one.
        service: A messaging service's SID (`MG...`), which chooses the sender if none is given.
        body: The text, at most 1,600 characters.
        media: URLs of at most ten pictures or files, which Twilio fetches.
        send_at: When to send it: 15 minutes to 35 days ahead.
        validity: Seconds that it may wait at Twilio before it is sent, at most 36,000.
        status_callback: Where Twilio tells what becomes of it, in the place of the client's.

    Raises:
        ValueError: `send_at` without a time zone, or without a service: Twilio would send at once.
    """

    to: str = field(repr=False)
    sender: str | None = field(default=None, repr=False)
    service: str | None = None
    body: str | None = field(default=None, repr=False)
    media: tuple[str, ...] = field(default=(), repr=False)
    send_at: datetime | None = None
    validity: int | None = None
    status_callback: str | None = None

    def __post_init__(self) -> None:
        if self.send_at is not None and self.send_at.tzinfo is None:
            raise ValueError("send_at has no time zone")
        if self.send_at is not None and self.service is None:
            raise ValueError("send_at needs a messaging service: without one, Twilio sends at once")

    def form(self, status_callback: str | None) -> list[tuple[str, str]]:
        """The parameters, as Twilio names them.

        Args:
            status_callback: Where Twilio tells what becomes of it.
        """
        at = None if self.send_at is None else self.send_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = {
            "To": self.to,
            "From": self.sender,
            "MessagingServiceSid": self.service,
            "Body": self.body,
            "ScheduleType": at and "fixed",
            "SendAt": at,
            "ValidityPeriod": self.validity,
            "StatusCallback": status_callback,
        }
        given = [(name, str(value)) for name, value in fields.items() if value is not None]
        return given + [("MediaUrl", url) for url in self.media]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as Twilio has it.

    Args:
        sid: `SM...`, or `MM...` with media.
        status: accepted, scheduled, queued, sending, sent, delivered, undelivered, failed, canceled, received, ...
        direction: `outbound-api`, `inbound`, ...
        to: Who gets it.
        sender: Who sent it; None until a messaging service has chosen.
        service: The messaging service.
        body: The text.
        segments: How many messages it is charged as; 0 until a messaging service has chosen the sender.
        media: How many files are with it.
        price: What it cost, in `price_unit`, negative; None until Twilio knows.
        price_unit: ISO 4217.
        error_code: Why it was not delivered: https://www.twilio.com/docs/api/errors.
        created_at: When Twilio took it; in UTC, as all times here.
        sent_at: When it was sent.
    """

    sid: str
    status: str
    direction: str
    to: str = field(repr=False)
    sender: str | None = field(repr=False)
    service: str | None
    body: str = field(repr=False)
    segments: int
    media: int
    price: Decimal | None
    price_unit: str | None
    error_code: int | None
    created_at: datetime
    sent_at: datetime | None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Reads Twilio's JSON.

        Raises:
            ValueError: It is not a message.
        """
        try:
            return cls(
                sid=told["sid"],
                status=told["status"],
                direction=told["direction"],
                to=told["to"],
                sender=told["from"],
                service=told["messaging_service_sid"],
                body=told["body"] or "",
                segments=int(told["num_segments"]),
                media=int(told["num_media"]),
                price=None if told["price"] is None else Decimal(told["price"]),
                price_unit=told["price_unit"],
                error_code=told["error_code"],
                created_at=parsedate_to_datetime(told["date_created"]).astimezone(UTC),
                sent_at=told["date_sent"] and parsedate_to_datetime(told["date_sent"]).astimezone(UTC),
            )
        except (LookupError, TypeError, ArithmeticError) as error:
            raise ValueError(f"not a message of Twilio's: {type(error).__name__}") from None

    def is_from(self, sms: Sms) -> bool:
        """Whether it was sent to whom, and from where, `sms` would be."""
        return (
            self.direction.startswith("outbound")
            and self.to == sms.to
            and self.service == (sms.service or self.service)
            and self.sender in {sms.sender or self.sender, None}
        )

    def says(self, sms: Sms) -> bool:
        """Whether it has the text, and as many files as, `sms`."""
        text = (sms.body or "").strip()
        return self.body.strip() in {text, TRIAL_PREFIX + text} and self.media == len(sms.media)

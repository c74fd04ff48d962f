"""What Twilio accepts as a message, and what it says about everything else (https://www.twilio.com/docs/api/errors)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

Form = dict[str, list[str]]
"""Each parameter's values: `MediaUrl` may have several."""

NUMBERS = ("+15005550006", "+15005550007")
"""The numbers that the account has; a messaging service sends from the first one."""

SOON, LATE = timedelta(minutes=15), timedelta(days=35)
"""How far ahead a message may be scheduled."""

_KNOWN = {"To", "From", "MessagingServiceSid", "Body", "MediaUrl", "StatusCallback", "ScheduleType", "SendAt"}
_KNOWN |= {"ValidityPeriod"}
_NUMBER = re.compile(r"\+[1-9]\d{6,14}")
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &-]{1,11}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_RECIPIENTS = {
    "+15005550001": (21211, "The 'To' number {} is not a valid phone number."),
    "+15005550002": (21612, "The 'To' phone number {} is not currently reachable using the 'From' phone number."),
    "+15005550003": (21408, "Permission to send an SMS has not been enabled for the region indicated by the 'To' {}."),
    "+15005550004": (21610, "Attempt to send to unsubscribed recipient {}"),
    "+15005550008": (21608, "The number {} is unverified. Trial accounts cannot send messages to unverified numbers."),
    "+15005550009": (21614, "'To' number {} is not a valid mobile number"),
}
"""Recipients that are refused: Twilio's own test numbers, and 0008 for a trial account's."""


class Refused(Exception):  # noqa: N818  (it is an answer, not a fault of the sandbox)
    """A request that Twilio does not take.

    Args:
        code: Twilio's code.
        message: What is wrong.
        status: HTTP status.
    """

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Wanted:
    """A message that is to be sent, as its parameters say."""

    to: str
    sender: str | None
    service: str | None
    body: str
    media: list[str]
    callback: str | None
    send_at: int | None


def read(form: Form, now: int, opted_out: Callable[[str, str], bool]) -> Wanted:
    """The message that the parameters ask for.

    Args:
        form: The parameters.
        now: The time, in seconds since 1970.
        opted_out: Whether a recipient does not want messages from a sender.

    Raises:
        Refused: Twilio would not take it.
    """
    for code, message in _mistakes(form, now):
        raise Refused(code, message)
    wanted = Wanted(
        to=form["To"][0],
        sender=_one(form, "From"),
        service=_one(form, "MessagingServiceSid"),
        body=_one(form, "Body") or "",
        media=form.get("MediaUrl", []),
        callback=_one(form, "StatusCallback"),
        send_at=int(at.timestamp()) if (at := _moment(_one(form, "SendAt"))) else None,
    )
    if opted_out(wanted.to, wanted.sender or NUMBERS[0]):
        raise Refused(21610, f"Attempt to send to unsubscribed recipient {wanted.to}")
    return wanted


def _mistakes(form: Form, now: int) -> Iterator[tuple[int, str]]:
    """All that is wrong with it, in the order in which Twilio looks."""
    for name, values in form.items():
        if name not in _KNOWN:
            yield 20001, f"Unknown parameter, or one that the sandbox does not act on: {name}"
        if name != "MediaUrl" and len(values) > 1:
            yield 20001, f"Parameter given more than once: {name}"
    yield from _bad_numbers(form)
    yield from _bad_content(form)
    yield from _bad_schedule(form, now)
    if (url := _one(form, "StatusCallback")) is not None and not _is_url(url):
        yield 21609, f"The 'StatusCallback' URL {url} is not a valid URL."
    if (seconds := _one(form, "ValidityPeriod")) is not None and not seconds.isdigit():
        yield 90014, "ValidityPeriod should be a positive integer."
    elif seconds is not None and not 1 <= int(seconds) <= 36_000:
        yield 90007, "ValidityPeriod should be between 1 and 36000."


def _bad_numbers(form: Form) -> Iterator[tuple[int, str]]:
    to, sender, service = _one(form, "To"), _one(form, "From"), _one(form, "MessagingServiceSid")
    if not to:
        yield 21604, "A 'To' phone number is required."
    elif not _NUMBER.fullmatch(to):
        yield 21211, f"The 'To' number {to} is not a valid phone number."
    elif to in _RECIPIENTS:
        code, message = _RECIPIENTS[to]
        yield code, message.format(to)
    if not sender and not service:
        yield 21603, "A 'From' phone number is required."
    if service and not re.fullmatch("MG[0-9a-f]{32}", service):
        yield 21705, f"The Messaging Service Sid {service} is invalid."
    if sender and sender == to:
        yield 21266, f"'To' and 'From' number cannot be the same: {sender}"
    if sender and not _NUMBER.fullmatch(sender) and not _NAME.fullmatch(sender):
        yield 21212, f"The 'From' number {sender} is not a valid phone number, shortcode, or alphanumeric sender ID."
    elif sender and sender.startswith("+") and sender not in NUMBERS:
        yield 21606, f"The 'From' phone number provided ({sender}) is not a valid, message-capable Twilio phone number."


def _bad_content(form: Form) -> Iterator[tuple[int, str]]:
    body, media = _one(form, "Body"), form.get("MediaUrl", [])
    if not body and not media:
        yield 21619, "A text message body or media urls must be specified."
    if len(body or "") > 1600:
        yield 21617, "The concatenated message body exceeds the 1600 character limit."
    if len(media) > 10:
        yield 21623, "Number of media files exceeds allowed limit"
    if any(not _is_url(url) for url in media):
        yield 21620, "Invalid media URL(s)"


def _bad_schedule(form: Form, now: int) -> Iterator[tuple[int, str]]:
    """Without a messaging service, Twilio forgets the schedule and sends at once: the sandbox says so."""
    kind, at = _one(form, "ScheduleType"), _one(form, "SendAt")
    if kind is None and at is None:
        return
    if kind != "fixed":
        yield 20001, "ScheduleType must be 'fixed'"
    if not _one(form, "MessagingServiceSid"):
        yield 35118, "MessagingServiceSid is required to schedule a message"
    moment, present = _moment(at), datetime.fromtimestamp(now, UTC)
    if moment is None or not present + SOON <= moment <= present + LATE:
        yield 35114, "Scheduling does not support this timestamp"


def _moment(text: str | None) -> datetime | None:
    if text is None or not _TIME.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _one(form: Form, name: str) -> str | None:
    return form[name][0] if name in form else None


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and "_" not in (parts.hostname or "")

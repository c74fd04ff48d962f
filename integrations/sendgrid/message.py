"""A mail, and how SendGrid wants it said."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parseaddr
from itertools import chain
from typing import Any

RECIPIENTS = 1000
"""Addresses that one request may have: to, cc and bcc together."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a mail.

    Args:
        name: The file's name, as the reader sees it.
        content: Its bytes; all of a mail together at most 30 MB.
        type: Media type; guessed from the name if not given.
        content_id: Name by which the HTML shows it: `<img src="cid:logo">`.
    """

    name: str
    content: bytes = field(repr=False)
    type: str | None = None
    content_id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A mail. An address is `ada@example.com` or `Ada Lovelace <ada@example.com>`.

    Args:
        sender: A verified sender's address.
        to: Addresses; they all see each other.
        subject: Subject; a template brings its own.
        text: Plain text; this or `html`, or both, unless there is a template.
        html: HTML.
        cc: Addresses that get a copy.
        bcc: Addresses that get a copy which the others do not see.
        reply_to: Where answers go, if not to the sender.
        template_id: A dynamic template (`d-...`).
        template_data: What the template says of this mail.
        attachments: Files.
        categories: For SendGrid's statistics; at most 10.
        send_at: When to send it, at most 72 hours from now; with a time zone.
        track_opens: Whether SendGrid tells when it is opened; as the account has it if not given.
        track_clicks: Whether SendGrid tells when its links are followed; as the account has it if not given.
        unsubscribe_group: The suppression group that it belongs to: who left the group does not get it.

    Raises:
        ValueError: `send_at` has no time zone.
    """

    sender: str = field(repr=False)
    to: tuple[str, ...] = field(repr=False)
    subject: str | None = field(default=None, repr=False)
    text: str | None = field(default=None, repr=False)
    html: str | None = field(default=None, repr=False)
    cc: tuple[str, ...] = field(default=(), repr=False, kw_only=True)
    bcc: tuple[str, ...] = field(default=(), repr=False, kw_only=True)
    reply_to: str | None = field(default=None, repr=False, kw_only=True)
    template_id: str | None = field(default=None, kw_only=True)
    template_data: Mapping[str, Any] | None = field(default=None, repr=False, kw_only=True)
    attachments: tuple[Attachment, ...] = field(default=(), kw_only=True)
    categories: tuple[str, ...] = field(default=(), kw_only=True)
    send_at: datetime | None = field(default=None, kw_only=True)
    track_opens: bool | None = field(default=None, kw_only=True)
    track_clicks: bool | None = field(default=None, kw_only=True)
    unsubscribe_group: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.send_at is not None and self.send_at.tzinfo is None:
            raise ValueError("send_at has no time zone: datetime(..., tzinfo=UTC)")

    @property
    def recipients(self) -> tuple[str, ...]:
        """The addresses alone, in lower case."""
        return tuple(_address(each)["email"].lower() for each in chain(self.to, self.cc, self.bcc))

    @property
    def common(self) -> tuple[object, ...]:
        """What mails of one request have in common; the rest may be each one's own."""
        shown = (self.sender, self.reply_to, self.text, self.html, self.template_id, self.attachments)
        return *shown, self.categories, self.track_opens, self.track_clicks, self.unsubscribe_group


def split(message: Message) -> Iterator[Message]:
    """The message; if it has more addresses than a request may have, as several, each address in one of them.

    Those in cc and bcc go with the first part; if they alone are too many, SendGrid is to say so.

    Args:
        message: The message.
    """
    room = RECIPIENTS - len(message.cc) - len(message.bcc)
    if len(message.to) <= room or room < 1:
        yield message
        return
    yield replace(message, to=message.to[:room])
    for start in range(room, len(message.to), RECIPIENTS):
        yield replace(message, to=message.to[start : start + RECIPIENTS], cc=(), bcc=())


def body(messages: Mapping[str, Message]) -> dict[str, Any]:
    """The body of `mail/send` (https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send).

    Args:
        messages: Operation key -> message; they have all in `common` in common.
    """
    first = next(iter(messages.values()))
    content = {"text/plain": first.text, "text/html": first.html}
    whole = {
        "personalizations": [_personalization(key, message) for key, message in messages.items()],
        "from": _address(first.sender),
        "reply_to": _address(first.reply_to) if first.reply_to else None,
        "content": [{"type": kind, "value": value} for kind, value in content.items() if value is not None],
        "template_id": first.template_id,
        "attachments": [_attachment(each) for each in first.attachments],
        "categories": [*first.categories],
        "tracking_settings": _tracking(first),
        "asm": None if first.unsubscribe_group is None else {"group_id": first.unsubscribe_group},
    }
    return _said(whole)


def _personalization(key: str, message: Message) -> dict[str, Any]:
    own = {
        "to": [_address(each) for each in message.to],
        "cc": [_address(each) for each in message.cc],
        "bcc": [_address(each) for each in message.bcc],
        "subject": message.subject,
        "dynamic_template_data": dict(message.template_data or {}),
        "send_at": None if message.send_at is None else int(message.send_at.timestamp()),
        "custom_args": {"operation_key": key},
    }
    return {"to": own["to"], **_said(own)}


def _address(text: str) -> dict[str, str]:
    name, address = parseaddr(text)
    if not address:  # SendGrid says better what is wrong with it
        return {"email": text}
    return {"email": address, "name": name} if name else {"email": address}


def _attachment(file: Attachment) -> dict[str, Any]:
    kind = file.type or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    told = {"content": base64.b64encode(file.content).decode(), "filename": file.name, "type": kind}
    if file.content_id is None:
        return told
    return {**told, "disposition": "inline", "content_id": file.content_id}


def _tracking(message: Message) -> dict[str, Any]:
    wanted = {"open_tracking": message.track_opens, "click_tracking": message.track_clicks}
    return {name: {"enable": enable} for name, enable in wanted.items() if enable is not None}


def _said(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Without what nothing is said of."""
    return {name: value for name, value in whole.items() if value is not None and value not in ([], {}, ())}

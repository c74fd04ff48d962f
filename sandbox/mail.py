"""What SendGrid accepts as a mail, and what it says about everything else."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from sandbox.mail_refusals import NOT_ACTED_ON, Mistake, Refused, Strict

_LONGEST_WAIT = 72 * 3600
_TEMPLATE = re.compile(r"d-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MISSING = {
    "personalizations": "The personalizations field is required and must have at least one personalization.",
    "to": "The to array is required for all personalization objects, and must have at least one email object with a "
    "valid email address.",
    "from": "The from object must be provided for every email send. It is an object that requires the email parameter, "
    "but may also contain a name parameter.",
    "email": "The email parameter is required.",
    "type": "The type parameter is required for every entry in the content array.",
    "value": "The content value must be a string at least one character in length.",
    "content": "The attachment content must be a string at least one character in length.",
    "filename": "filename is required.",
    "subject": "The subject of your email must be a string at least one character in length.",
}
_NO_SUBJECT = (
    "The subject is required. You can get around this requirement if you use a template with a subject defined or if "
    "every personalization has a subject defined."
)
_NO_CONTENT = (
    "Unless a valid template_id is provided, the content parameter is required. There must be at least one defined "
    "content block. We typically suggest both text/plain and text/html blocks are included, but only one block is "
    "required."
)
_ORDER = {"text/plain": 0, "text/html": 1}


class _Address(Strict):
    email: str
    name: str | None = None


_Addresses = Annotated[list[_Address], Field(min_length=1)]


class Personalization(Strict):
    """Who gets a mail, and what is theirs in it."""

    to: _Addresses
    cc: _Addresses = Field([])
    bcc: _Addresses = Field([])
    subject: str | None = Field(None, min_length=1)
    custom_args: dict[str, str] = Field({})
    dynamic_template_data: dict[str, Any] = Field({})
    send_at: int | None = None

    @property
    def recipients(self) -> list[tuple[str, int, str]]:
        """Where each address stands: kind, index, address."""
        kinds = {"to": self.to, "cc": self.cc, "bcc": self.bcc}
        return [(kind, index, each.email) for kind, them in kinds.items() for index, each in enumerate(them)]


class _Content(Strict):
    type: str = Field(min_length=1)
    value: str = Field(min_length=1)


class _Attachment(Strict):
    content: str = Field(min_length=1)
    filename: str
    type: str | None = Field(None, min_length=1)
    disposition: Literal["inline", "attachment"] = "attachment"
    content_id: str | None = None


class _Switch(Strict):
    enable: bool = False


class _Tracking(Strict):
    click_tracking: _Switch = _Switch(enable=True)
    open_tracking: _Switch = _Switch(enable=True)


class _Group(Strict):
    group_id: int


class Mail(Strict):
    """The body of `mail/send`, as far as the sandbox acts on it."""

    personalizations: list[Personalization] = Field(min_length=1)
    from_: _Address = Field(alias="from")
    reply_to: _Address | None = None
    subject: str | None = Field(None, min_length=1)
    content: list[_Content] = Field([])
    attachments: list[_Attachment] = Field([])
    template_id: str | None = None
    tracking_settings: _Tracking = _Tracking()
    asm: _Group | None = None
    send_at: int | None = None
    categories: list[str] = Field([])
    custom_args: dict[str, str] = Field({})


def read(body: bytes, now: int) -> Mail:
    """The mail in a request's body.

    Args:
        body: The body.
        now: The time, in seconds since 1970.

    Raises:
        Refused: SendGrid would not take it.
    """
    try:
        mail = Mail.model_validate_json(body)
    except ValidationError as error:
        raise Refused(*(_mistake(each["loc"], each["type"]) for each in error.errors())) from None
    if mistakes := [*_mistakes(mail, now)]:
        raise Refused(*mistakes)
    return mail


def is_address(text: str) -> bool:
    """Whether a text is an e-mail address."""
    return re.fullmatch(r"[^@\s<>,;]+@[^@\s<>,;]+\.[^@\s<>,;.]+", text) is not None


def _mistake(place: tuple[int | str, ...], kind: str) -> Mistake:
    """What SendGrid says about a value of the wrong shape: little, unless it is missing."""
    name = next((str(each) for each in reversed(place) if isinstance(each, str)), "")
    if kind in {"missing", "too_short", "string_too_short"}:
        return _MISSING.get(name, "Bad Request"), _dotted(place)
    if name == "disposition":
        return 'The disposition of your attachment can be either "inline" or "attachment".', _dotted(place)
    if kind == "extra_forbidden":
        return NOT_ACTED_ON, _dotted(place)
    return "Bad Request", None


def _dotted(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place))


def _mistakes(mail: Mail, now: int) -> Iterator[Mistake]:
    if sum(len(each.recipients) for each in mail.personalizations) > 1000:
        yield "There is a limit of 1000 total recipients (to + cc + bcc) per request.", "personalizations"
    for index, personalization in enumerate(mail.personalizations):
        yield from _bad_addresses(personalization, f"personalizations.{index}")
        yield from _too_late(personalization.send_at, f"personalizations.{index}.send_at", now)
    yield from _too_late(mail.send_at, "send_at", now)
    if not is_address(mail.from_.email):
        yield "The from email does not contain a valid address.", "from.email"
    yield from _bad_template(mail.template_id)
    if not mail.subject and not mail.template_id and not all(each.subject for each in mail.personalizations):
        yield _NO_SUBJECT, "subject"
    if mail.content or not mail.template_id:
        yield from _bad_content([each.type for each in mail.content])
    yield from _bad_attachments(mail.attachments)
    yield from _bad_categories(mail.categories)


def _bad_addresses(personalization: Personalization, place: str) -> Iterator[Mistake]:
    seen: set[str] = set()
    for kind, index, email in personalization.recipients:
        if not is_address(email):
            yield "Does not contain a valid address.", f"{place}.{kind}.{index}.email"
        if email.lower() in seen:
            what = f"We found the first duplicate instance of [{email}] in the {place}.{kind} field."
            rule = "Each email address in the personalization block should be unique between to, cc, and bcc."
            yield f"{rule} {what}", place
        seen.add(email.lower())


def _bad_content(kinds: list[str]) -> Iterator[Mistake]:
    if not kinds:
        yield _NO_CONTENT, "content"
    if len(kinds) != len(set(kinds)):
        yield "If present, text/plain and text/html may only be provided once.", "content"
    if kinds != sorted(kinds, key=lambda kind: _ORDER.get(kind, 2)):
        yield "If present, text/plain must be first, followed by text/html, followed by any other content.", "content"


def _bad_categories(categories: list[str]) -> Iterator[Mistake]:
    if len(categories) > 10:
        yield "The number of categories cannot be more than 10.", "categories"
    if len(categories) != len(set(categories)):
        yield "The categories array must contain unique items.", "categories"
    if any(len(each) > 255 for each in categories):
        yield "The length of each category must not exceed 255 characters.", "categories"


def _too_late(moment: int | None, place: str, now: int) -> Iterator[Mistake]:
    if moment is not None and moment > now + _LONGEST_WAIT:
        yield "Scheduling more than 72 hours in advance is forbidden.", place


def _bad_template(template_id: str | None) -> Iterator[Mistake]:
    # Whether there is such a template is not looked at: mail of one that is not there is dropped later.
    if template_id is not None and not _TEMPLATE.fullmatch(template_id):
        yield f"The template_id must be a valid GUID, you provided '{template_id}'.", "template_id"


def _bad_attachments(attachments: list[_Attachment]) -> Iterator[Mistake]:
    for index, each in enumerate(attachments):
        try:
            base64.b64decode(each.content, validate=True)
        except ValueError:
            yield "The attachment content must be base64 encoded.", f"attachments.{index}.content"
        if re.search(r"[\r\n;,]", each.filename):
            yield "The filename of your attachment can't contain CRLF characters.", f"attachments.{index}.filename"

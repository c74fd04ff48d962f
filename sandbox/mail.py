"""What SendGrid accepts as a mail, and what it says about everything else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Mistake = tuple[str, str | None]
"""What is wrong, and with which field."""

_MISSING = {
    "personalizations": "The personalizations field is required and must have at least one personalization.",
    "to": "The to array is required for all personalization objects, and must have at least one email object with a "
    "valid email address.",
    "from": "The from object must be provided for every email send. It is an object that requires the email parameter, "
    "but may also contain a name parameter.",
    "email": "The email parameter is required.",
    "type": "The type parameter is required for every entry in the content array.",
    "value": "The content value must be a string at least one character in length.",
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


class Invalid(Exception):  # noqa: N818  (it is an answer, not a fault of the sandbox)
    """A mail that SendGrid does not take.

    Args:
        mistakes: All that is wrong with it.
    """

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class _Address(_Model):
    email: str
    name: str | None = None


_Addresses = Annotated[list[_Address], Field(min_length=1)]


class Personalization(_Model):
    """Who gets a mail, and what is theirs in it."""

    to: _Addresses
    cc: _Addresses = []
    bcc: _Addresses = []
    subject: str | None = None
    custom_args: dict[str, str] = {}

    @property
    def recipients(self) -> list[tuple[str, int, str]]:
        """Where each address stands: kind, index, address."""
        kinds = {"to": self.to, "cc": self.cc, "bcc": self.bcc}
        return [(kind, index, each.email) for kind, them in kinds.items() for index, each in enumerate(them)]


class _Content(_Model):
    type: str = Field(min_length=1)
    value: str = Field(min_length=1)


class Mail(_Model):
    """The body of `mail/send`, as far as the sandbox acts on it."""

    personalizations: list[Personalization] = Field(min_length=1)
    from_: _Address = Field(alias="from")
    reply_to: _Address | None = None
    subject: str | None = None
    content: list[_Content] = []
    categories: list[str] = []
    custom_args: dict[str, str] = {}


def read(body: bytes) -> Mail:
    """The mail in a request's body.

    Raises:
        Invalid: SendGrid would not take it.
    """
    try:
        mail = Mail.model_validate_json(body)
    except ValidationError as error:
        raise Invalid([_mistake(each["loc"], each["type"]) for each in error.errors()]) from None
    if mistakes := [*_mistakes(mail)]:
        raise Invalid(mistakes)
    return mail


def _mistake(place: tuple[int | str, ...], kind: str) -> Mistake:
    """What SendGrid says about a value of the wrong shape: little, unless it is missing."""
    name = next((str(each) for each in reversed(place) if isinstance(each, str)), "")
    if kind in {"missing", "too_short", "string_too_short"}:
        return _MISSING.get(name, "Bad Request"), ".".join(str(each) for each in place)
    if kind == "extra_forbidden":
        return "Bad Request: the sandbox does not act on this field", ".".join(str(each) for each in place)
    return "Bad Request", None


def _mistakes(mail: Mail) -> Iterator[Mistake]:
    if sum(len(each.recipients) for each in mail.personalizations) > 1000:
        yield "There is a limit of 1000 total recipients (to + cc + bcc) per request.", "personalizations"
    for index, personalization in enumerate(mail.personalizations):
        yield from _bad_addresses(personalization, f"personalizations.{index}")
    if not _is_address(mail.from_.email):
        yield "The from email does not contain a valid address.", "from.email"
    if not mail.subject and not all(each.subject for each in mail.personalizations):
        yield _NO_SUBJECT, "subject"
    yield from _bad_content([each.type for each in mail.content])
    yield from _bad_categories(mail.categories)


def _bad_addresses(personalization: Personalization, place: str) -> Iterator[Mistake]:
    seen: set[str] = set()
    for kind, index, email in personalization.recipients:
        if not _is_address(email):
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


def _is_address(text: str) -> bool:
    return re.fullmatch(r"[^@\s<>,;]+@[^@\s<>,;]+\.[^@\s<>,;.]+", text) is not None

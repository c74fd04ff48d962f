"""SendGrid's inbound parse: mails that came in, as forms (multipart/form-data), parsed or raw.

They are signed if a security policy of the account says so, by a key of that policy's own; else the URL holds a user
and a password (https://www.twilio.com/docs/sendgrid/for-developers/parsing-email/securing-your-parse-webhooks).
SendGrid drops a mail that is answered with 4xx: only what can never be taken is.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from events.cause import new_event
from gateway.provider import Hook, Received
from gateway.providers.sendgrid_signature import Signature
from gateway.refusal import RefusedError
from gateway.verify import check_secret, header, require
from settings import Settings, several

_KEYS, _SECRETS = "PIVOTAL_SENDGRID_INBOUND_KEYS", "PIVOTAL_SENDGRID_INBOUND_SECRETS"
_PARTS = 1000
_OF_JSON = frozenset({"envelope", "charsets", "attachment-info", "content-ids"})
_CHARSETS = re.compile(
    r"utf-(7|8|16|32)(-[bl]e|-sig)?|ascii|iso8859-\d+|iso2022_\w+|cp\d+|koi8-\w|mac-\w+|gb\w+|hz|big5\w*|euc_\w+"
    r"|shift_jis\w*|johab|tis-620"
)
"""What Python calls the charsets of mails; it has others, which do more than decode."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of the form, or an attachment."""

    name: str
    filename: str | None
    type: str
    content: bytes


class SendGridInbound:
    """See `Provider`.

    Args:
        settings: Public keys, or passwords, any of which may match; the tolerance; how large a mail may be.
    """

    name, path, content_types = "sendgrid_inbound", "/webhooks/sendgrid/inbound", frozenset({"multipart/form-data"})

    def __init__(self, settings: Settings) -> None:
        self.body_limit = settings.sendgrid_inbound_limit
        self._kept = settings.sendgrid_attachment_limit
        self._secrets = several(settings.sendgrid_inbound_secrets)
        keys = settings.sendgrid_inbound_keys
        where = "the policy's public_key, as the API returned it"
        self._signature = Signature(_KEYS, keys, where, settings.webhook_tolerance) if several(keys) else None

    def prepare(self) -> None:
        """See `Provider.prepare`."""
        if self._signature:
            self._signature.prepare()
        else:
            require(self._secrets, f"{_KEYS} or {_SECRETS}")

    def receive(self, hook: Hook) -> Received:
        """See `Provider.receive`. With keys, a password is not enough."""
        self.prepare()
        if self._signature:
            self._signature.check(hook)
        else:
            check_secret(_password(header(hook.headers, "Authorization")), self._secrets)
        parts = list(_parts(hook))
        if not parts:
            raise RefusedError(400, "the form is empty")
        key = _digest(parts)
        told = mail(parts, self._kept)
        event = new_event("sendgrid.inbound.received", ("mail", key), told, source="sendgrid", dedupe_key=key)
        return Received([event])


def mail(parts: Sequence[Part], kept: int) -> dict[str, Any]:
    """What an event tells of a mail: `fields` of text, `files`, and the bytes of fields that are not all text.

    Args:
        parts: The form.
        kept: Bytes of an attachment that the event holds; of a larger one it holds the digest.
    """
    plain = [part for part in parts if part.filename is None]
    charsets = _charsets(plain)
    damaged: dict[str, str] = {}
    fields: dict[str, Any] = {}
    for part in plain:
        text, whole = _decoded(part.content, charsets.get(part.name, "utf-8"))
        if not whole:
            damaged[part.name] = base64.b64encode(part.content).decode()
        value = _json(text) if part.name in _OF_JSON else text
        fields[part.name] = f"{fields[part.name]}\n{text}" if part.name in fields else value
    files = [_file(part, kept) for part in parts if part.filename is not None]
    return {"fields": fields, "files": files} | ({"damaged": damaged} if damaged else {})


def _file(part: Part, kept: int) -> dict[str, Any]:
    about = {
        "name": part.name,
        "filename": part.filename,
        "type": part.type,
        "size": len(part.content),
        "sha256": hashlib.sha256(part.content).hexdigest(),
    }
    return about | ({"content": base64.b64encode(part.content).decode()} if len(part.content) <= kept else {})


def _password(authorization: str) -> str:
    scheme, _, credentials = authorization.partition(" ")
    try:
        told = base64.b64decode(credentials.strip(), validate=True).decode() if scheme.lower() == "basic" else ""
    except ValueError:
        told = ""
    if ":" not in told:
        raise RefusedError(400, "Authorization is not Basic, with a user and a password")
    return told.partition(":")[2]


def _parts(hook: Hook) -> Iterator[Part]:
    import multipart

    try:
        _, options = multipart.parse_options_header(hook.headers["content-type"])
        # latin-1 reads any bytes: file names are in the mail's own charset.
        parser = multipart.PushMultipartParser(
            options.get("boundary", ""), max_segment_count=_PARTS, header_charset="latin-1"
        )
        with parser:
            yield from _whole(parser.parse(hook.body))
    except ValueError as error:
        raise RefusedError(400, f"the body is not a form: {error}") from None


def _whole(events: Iterator[Any]) -> Iterator[Part]:
    """The parser tells a part's head, pieces of its content, and None at its end."""
    head: Any = None
    content = bytearray()
    for event in events:
        if event is None:
            filename = None if head.filename is None else _recoded(head.filename)
            yield Part(_recoded(head.name), filename, head.content_type or "", bytes(content))
        elif isinstance(event, bytes | bytearray):
            content += event
        else:
            head, content = event, bytearray()


def _recoded(text: str) -> str:
    try:
        return text.encode("latin-1").decode()
    except ValueError:
        return text


def _digest(parts: Sequence[Part]) -> str:
    """Sent again, a mail is the same, but for the form's order. Not its Message-Id: whoever wrote it chose that."""
    made = (hashlib.sha256(f"{part.name}\0{part.filename}\0".encode() + part.content).digest() for part in parts)
    return hashlib.sha256(b"".join(sorted(made))).hexdigest()


def _charsets(plain: Sequence[Part]) -> Mapping[str, str]:
    told = next((_json(part.content.decode(errors="replace")) for part in plain if part.name == "charsets"), None)
    if not isinstance(told, dict):
        return {}
    return {name: charset for name, charset in told.items() if isinstance(charset, str) and _is_known(charset)}


def _is_known(charset: str) -> bool:
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,40}", charset):
        return False
    try:
        return bool(_CHARSETS.fullmatch(codecs.lookup(charset).name))
    except LookupError:
        return False


def _decoded(content: bytes, charset: str) -> tuple[str, bool]:
    """The text, and whether all of it could be read."""
    try:
        text = content.decode(charset)
        text.encode()  # UTF-7 can spell half a character, which no log takes
    except UnicodeError:
        return content.decode(errors="replace"), False
    return text, True


def _json(text: str) -> Any:  # noqa: ANN401  (JSON)
    """What the text says as JSON; as it is, if it is none."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text

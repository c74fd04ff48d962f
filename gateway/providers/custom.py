"""Senders that `webhooks.yaml` declares: Standard Webhooks, a plain HMAC, or a key in a header."""

from __future__ import annotations

import base64
import hashlib
import hmac
from functools import cached_property
from typing import Any, assert_never

from errors import PivotalError
from events.cause import new_event
from events.envelope import Event
from gateway.declared import ApiKey, Hmac, Standard
from gateway.mapping import moment, parse_object, text, type_name
from gateway.provider import Hook, Received
from gateway.refusal import RefusedError
from gateway.verify import check_age, check_secret, header, require, seconds
from settings import Settings, several

_ID, _TIMESTAMP, _SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


class Custom:
    """See `Provider`.

    Args:
        name: The sender's name in `webhooks.yaml`.
        sender: What it says there.
        settings: The tolerance and the limits.
    """

    content_types: frozenset[str] = frozenset()

    def __init__(self, name: str, sender: Standard | Hmac | ApiKey, settings: Settings) -> None:
        self.name, self.path = f"custom.{name}", f"/webhooks/custom/{name}"
        self.body_limit = settings.webhook_body_limit
        self._kind, self._sender, self._tolerance = name, sender, settings.webhook_tolerance

    def prepare(self) -> None:
        """See `Provider.prepare`."""
        self._verifying()

    def receive(self, hook: Hook) -> Received:
        """See `Provider.receive`."""
        keys = self._verifying()
        match self._sender:
            case Standard():
                self._verify_standard(hook, keys)
            case Hmac():
                self._verify_hmac(hook, keys, self._sender)
            case ApiKey():
                check_secret(_after(self._sender.prefix, hook, self._sender.header), [key.decode() for key in keys])
            case _:
                assert_never(self._sender)
        return Received([self._event(hook)])

    def _verifying(self) -> list[bytes]:
        require(self._keys, self._sender.secrets.strip("${}"))
        return self._keys

    @cached_property
    def _keys(self) -> list[bytes]:
        from etl.variables import resolve

        try:
            secrets = several(resolve(self._sender.secrets))
        except PivotalError:  # not set: said by whoever needs it
            return []
        if isinstance(self._sender, Standard):
            return [_standard_key(each, number, self._sender.secrets) for number, each in enumerate(secrets, 1)]
        return [each.encode() for each in secrets]

    def _verify_standard(self, hook: Hook, keys: list[bytes]) -> None:
        """By https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.

        Not by its own library: that reads the body as text, and falls over what is not a signature.
        """
        id_, timestamp, signature = (header(hook.headers, name) for name in (_ID, _TIMESTAMP, _SIGNATURE))
        sent_at = seconds(timestamp, _TIMESTAMP)
        given = [each.removeprefix("v1,") for each in signature.split(" ") if each.startswith("v1,")]
        if not given:
            raise RefusedError(400, f"{_SIGNATURE} has no v1 signature")
        signed = f"{id_}.{timestamp}.".encode() + hook.body
        made = [base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys]
        if not any(hmac.compare_digest(one, other) for one in given for other in made):
            raise RefusedError(401, f"no secret matched; {len(keys)} tried")
        check_age(sent_at, self._tolerance)

    def _verify_hmac(self, hook: Hook, keys: list[bytes], sender: Hmac) -> None:
        given = _after(sender.prefix, hook, sender.header)
        digests = [hmac.digest(key, hook.body, sender.algorithm) for key in keys]
        if sender.encoding == "hex":
            given, made = given.lower(), [digest.hex() for digest in digests]
        else:
            made = [base64.b64encode(digest).decode() for digest in digests]
        check_secret(given, made)

    def _event(self, hook: Hook) -> Event:
        told, reading = parse_object(hook.body), self._sender.event
        event_id = self._event_id(hook, told)
        thing = _found(hook, told, reading.aggregate) if reading.aggregate else ""
        return new_event(
            type_name(self.name, _found(hook, told, reading.type) or "received"),
            (reading.aggregate_type or self._kind, thing) if thing else ("event", event_id),
            told,
            source=self.name,
            dedupe_key=event_id,
            timestamp=moment(_value(told, reading.time)),
        )

    def _event_id(self, hook: Hook, told: dict[str, Any]) -> str:
        """What is configured; of Standard Webhooks, the signed id; the body's own; without any, the body is its own.

        Nor is a header that an HMAC does not cover: with another one, a recorded request would be another event.
        """
        place = self._sender.event.id
        if "id" not in self._sender.event.model_fields_set and isinstance(self._sender, Standard):
            return hook.headers[_ID]
        unsigned = isinstance(self._sender, Hmac) and place.startswith("header:")
        return ("" if unsigned else _found(hook, told, place)) or hashlib.sha256(hook.body).hexdigest()


def _standard_key(secret: str, number: int, variable: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not key:
        reason = f"secret {number} of {variable} is not base64, as those of Standard Webhooks are"
        raise RefusedError(503, reason, hint="copy it from the sender's settings: whsec_...")
    return key


def _after(prefix: str, hook: Hook, name: str) -> str:
    """A header's value behind its prefix."""
    value = header(hook.headers, name)
    if not value.startswith(prefix):
        raise RefusedError(400, f"{name} does not start with {prefix!r}")
    return value.removeprefix(prefix).strip()


def _found(hook: Hook, told: dict[str, Any], place: str) -> str:
    """The text, or the whole number of a usual size, that stands there; empty if there is none."""
    if place.startswith("header:"):
        return hook.headers.get(place.removeprefix("header:"), "")
    value = _value(told, place)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64:
        return str(value)
    return text(value)


def _value(told: Any, place: str) -> object:  # noqa: ANN401  (JSON)
    for step in place.split("."):
        told = told.get(step) if isinstance(told, dict) else None
    return told

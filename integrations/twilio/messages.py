"""Sending messages, one or many; finding, listing and canceling them.

Twilio knows no idempotency keys. So a message is sent again only if it is certain that Twilio did not take it: Twilio
was not reached, refused it, or does not have it, also after `settle` seconds (see `integrations.twilio.lost`). What
cannot be known is an error that says so, and nothing is sent.

With an event log, all this holds for reruns, too: a run tells that it begins, and what it has sent. Another one with
the same operation id returns what was sent; if the first died in between, it looks before it sends.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from integrations.calls import NOT_SENT, UNREACHABLE, Operation, idempotency_key
from integrations.many import Many
from integrations.twilio.client import Client
from integrations.twilio.errors import TwilioIntegrationError
from integrations.twilio.lost import AmbiguousError, are_over, begin, look_for, since, while_running
from integrations.twilio.message import Message, Sms
from integrations.twilio.reading import message as read
from integrations.twilio.reading import pages

if TYPE_CHECKING:
    from events.log import EventLog

_CREATE = "messages.create"
_SENT = "sms.sent"
_CANNOT_BE_CANCELED = "30409"


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that Twilio took.

    Args:
        message: The message, as Twilio had it then.
        known: How that is known: `answered`, Twilio said so; `found`, its answer got lost, but the only message that
            can be this one is there; `before`, an earlier run with this operation id sent it.
    """

    message: Message
    known: Literal["answered", "found", "before"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one of many messages.

    Args:
        index: Its place among the messages.
        sent: The message, if Twilio took it.
        error: Why it did not, or why that is not known.
    """

    index: int
    sent: Sent | None = None
    error: TwilioIntegrationError | None = None


class Messages:
    """Messages. Threads may share it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sids: deque[str] = deque(maxlen=10_000)
        """Messages that are known to be of other operations."""

    def send(self, sms: Sms, *, operation_id: str) -> Sent:
        """Sends a message, once for one operation id.

        Args:
            sms: The message.
            operation_id: The caller's own name of this one doing. What Twilio's status callbacks say about the message
                carries it as `operation_key`.

        Raises:
            TwilioIntegrationError: Twilio refused it, or could not be reached within the budget; if it is not certain
                whether it was taken, `retryable` is False and the hint says how to find out.
            EventLogError: Whether it was sent before cannot be looked up.
        """
        key = idempotency_key(f"twilio.{_CREATE}", operation_id)
        sent = None if self._client.events is None else self._sent_before(self._client.events, sms, key)
        if sent is None:
            began = time.monotonic()
            sent = self._client.calls.call(Operation(_CREATE), lambda: self._try(sms, key, began))
        if sent.known != "before":
            self._tell(sent, key)
        return sent

    def send_many(self, messages: Sequence[Sms], *, operation_id: str, at_once: int = 8) -> Many[Result]:
        """Sends many messages; that one is refused does not keep the others.

        Args:
            messages: The messages.
            operation_id: The caller's own name of this one doing; the n-th message's is `<operation_id>/<n>`, from 0.
            at_once: Calls under way at a time.

        Returns:
            One result a message, in their order. Twilio's errors are in there, none is raised.

        Raises:
            EventLogError: Whether they were sent before cannot be looked up.
        """
        with ThreadPoolExecutor(at_once, thread_name_prefix="twilio") as pool:
            waiting = [
                pool.submit(copy_context().run, self._result, index, sms, f"{operation_id}/{index}")
                for index, sms in enumerate(messages)
            ]
        return Many(tuple(done.result() for done in waiting))

    def get(self, sid: str) -> Message:
        """One message.

        Args:
            sid: `SM...` or `MM...`.

        Raises:
            TwilioIntegrationError: There is none, or Twilio could not be reached within the budget.
        """
        return read("messages.get", self._client.get("messages.get", self._path(sid)))

    def list(
        self,
        *,
        to: str | None = None,
        sender: str | None = None,
        sent_after: datetime | None = None,
        sent_before: datetime | None = None,
    ) -> Iterator[Message]:
        """Every message, inbound ones too, latest first; every page has the whole retry budget.

        Args:
            to: Only those to this number.
            sender: Only those from this number.
            sent_after: Only those sent at this time or after; with a time zone.
            sent_before: Only those sent at this time or before.

        Raises:
            TwilioIntegrationError: As for `get`.
        """
        times = {"DateSent>": sent_after, "DateSent<": sent_before}
        asked = {name: f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for name, at in times.items() if at is not None}
        numbers = {name: number for name, number in {"To": to, "From": sender}.items() if number is not None}
        for _, page in pages(self._client, {**numbers, **asked}):
            yield from page

    def cancel(self, sid: str) -> Message:
        """Cancels a scheduled message. One that is canceled already stays so.

        Args:
            sid: `SM...` or `MM...`.

        Raises:
            TwilioIntegrationError: It is not scheduled (any more), or as for `get`.
        """
        try:
            answer = self._client.post("messages.cancel", self._path(sid), [("Status", "canceled")])
            message = read("messages.cancel", answer)
        except TwilioIntegrationError as error:
            if error.code != _CANNOT_BE_CANCELED:
                raise
            message = self.get(sid)
            if message.status != "canceled":
                raise
        self._client.calls.announce("sms.canceled", ("message", sid), {"message_sid": sid}, key=f"canceled/{sid}")
        return message

    def _path(self, sid: str) -> str:
        return self._client.path(f"Messages/{sid}")

    def _result(self, index: int, sms: Sms, operation_id: str) -> Result:
        try:
            return Result(index, self.send(sms, operation_id=operation_id))
        except TwilioIntegrationError as error:
            return Result(index, error=error)

    def _sent_before(self, log: EventLog, sms: Sms, key: str) -> Sent | None:
        """What an earlier run of the same operation has sent."""
        began = begin(log, key)
        if not began:
            return None
        if told := _told(log, key):
            return Sent(_same(self.get(told), sms), "before")
        try:
            pauses = (0.0,) if are_over(began) else (0.0, self._client.config.settle)
            found = look_for(self._client, sms, while_running(began), self._sids, pauses)
        except AmbiguousError as several:
            raise _unsure(
                f"twilio: {_CREATE}: an earlier run did not end", key, f"it may be one of {several}"
            ) from several
        return Sent(found, "found") if found else None

    def _try(self, sms: Sms, key: str, began: float) -> Sent:
        """One try; it may be repeated if it raises an error that is retryable."""
        form = sms.form(_callback(sms.status_callback or self._client.config.status_callback, key))
        try:
            answer = self._client.post_once(_CREATE, self._client.path("Messages"), form)
            return Sent(read(_CREATE, answer), "answered")
        except TwilioIntegrationError as error:
            if not _may_be_taken(error):
                raise
            found = self._left_behind(error, sms, key, began)
            if found is None:
                error.retryable = True
                raise
            return Sent(found, "found")

    def _left_behind(self, failed: TwilioIntegrationError, sms: Sms, key: str, began: float) -> Message | None:
        try:
            return look_for(self._client, sms, since(began), self._sids, (0.0, self._client.config.settle))
        except AmbiguousError as several:
            raise _unsure(failed.message, key, f"it may be one of {several}", failed) from failed
        except TwilioIntegrationError as trouble:
            raise _unsure(failed.message, key, "looking for it failed, too", failed) from trouble

    def _tell(self, sent: Sent, key: str) -> None:
        message = sent.message
        self._sids.append(message.sid)
        facts = {"message_sid": message.sid, "status": message.status, "service": message.service}
        facts |= {"operation_key": key, "known": sent.known}
        self._client.calls.announce(_SENT, ("message", message.sid), facts, key=key)


def _told(log: EventLog, key: str) -> str | None:
    """The SID of the message that the event log says was sent."""
    found = (recorded.event for recorded in log.find(key))
    return next((event.aggregate_id for event in found if event.type == f"pivotal.twilio.{_SENT}"), None)


def _same(message: Message, sms: Sms) -> Message:
    if message.to == sms.to:
        return message
    raise TwilioIntegrationError(
        f"twilio: {_CREATE}: this operation id was used before, for {message.sid} to another number",
        service="twilio",
        operation=_CREATE,
        code=NOT_SENT,
        hint="give every doing an operation id of its own",
    )


def _may_be_taken(error: TwilioIntegrationError) -> bool:
    refused = error.status is not None and 300 <= error.status < 500 and error.status != 408
    return not refused and error.code not in {UNREACHABLE, NOT_SENT}


def _unsure(what: str, key: str, why: str, failed: TwilioIntegrationError | None = None) -> TwilioIntegrationError:
    error = TwilioIntegrationError(
        f"{what}; whether the message was taken is not known: {why}",
        service="twilio",
        operation=_CREATE,
        hint=f"look for operation_key {key} in sms_messages, and in Twilio's log of messages, before it is sent again",
    )
    if failed is not None:
        error.status, error.code, error.request_id = failed.status, failed.code, failed.request_id
    return error


def _callback(url: str | None, key: str) -> str | None:
    """Where Twilio tells what becomes of a message; the URL carries the operation, for nothing else would."""
    return url and f"{url}{'&' if '?' in url else '?'}{urlencode({'operation_key': key})}"

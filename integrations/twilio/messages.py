"""Sending messages, one or many; finding, listing and canceling them.

Twilio knows no idempotency keys. So a message is sent again only if it is certain that Twilio did not take it: Twilio
was not reached, refused it, or does not have it. Where no answer tells, the message is looked for among those that
Twilio took since the try began, to the same number and from the same sender: the one with the same text is ours. None
at all, also after `settle` seconds, means that it was not taken. Anything else is an error that says so, and nothing is
sent.

A rerun finds what it sent before on the event log, by its operation id.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Literal

import httpx

from integrations.calls import NOT_SENT, UNREACHABLE, Operation, idempotency_key
from integrations.http import Response
from integrations.twilio.client import Client
from integrations.twilio.errors import TwilioIntegrationError
from integrations.twilio.message import Message, Sms

SMS_SENT = "sms.sent"
_CREATE = "messages.create"
_GARBLED = "garbled"
_CANNOT_BE_CANCELED = "30409"
_PAGE = "200"
_SLACK = timedelta(seconds=2)
"""Twilio tells time in whole seconds, and not all of its machines the same."""


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


@dataclass(frozen=True, slots=True)
class SentMany:
    """What became of many messages.

    Args:
        results: One a message, in their order.
    """

    results: tuple[Result, ...]

    @property
    def total(self) -> int:
        """How many messages there were."""
        return len(self.results)

    @property
    def successful(self) -> int:
        """How many Twilio took."""
        return self.total - self.failed

    @property
    def failed(self) -> int:
        """How many it did not take, as far as is known."""
        return sum(result.error is not None for result in self.results)


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
        if before := self._sent_before(key, sms):
            return Sent(before, "before")
        began = time.monotonic()
        sent = self._client.calls.call(Operation(_CREATE), lambda: self._try(sms, key, began))
        self._sids.append(sent.message.sid)
        facts = {"message_sid": sent.message.sid, "status": sent.message.status, "service": sent.message.service}
        facts |= {"operation_key": key, "known": sent.known}
        self._client.calls.announce(SMS_SENT, ("message", sent.message.sid), facts, key=key)
        return sent

    def send_many(self, messages: Sequence[Sms], *, operation_id: str, at_once: int = 8) -> SentMany:
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
        return SentMany(tuple(done.result() for done in waiting))

    def get(self, sid: str) -> Message:
        """One message.

        Args:
            sid: `SM...` or `MM...`.

        Raises:
            TwilioIntegrationError: There is none, or Twilio could not be reached within the budget.
        """
        return _message("messages.get", self._client.get("messages.get", self._path(sid)))

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
        for _, page in self._pages({**numbers, **asked}):
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
            message = _message("messages.cancel", answer)
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

    def _sent_before(self, key: str, sms: Sms) -> Message | None:
        found = [] if self._client.events is None else self._client.events.find(key)
        for event in (recorded.event for recorded in found):
            if event.type == f"pivotal.twilio.{SMS_SENT}":
                message = self.get(event.aggregate_id)
                if message.to != sms.to:
                    raise TwilioIntegrationError(
                        f"twilio: {_CREATE}: this operation id was used before, for {message.sid} to another number",
                        service="twilio",
                        operation=_CREATE,
                        code=NOT_SENT,
                        hint="give every doing an operation id of its own",
                    )
                return message
        return None

    def _try(self, sms: Sms, key: str, began: float) -> Sent:
        """One try; it may be repeated if it raises an error that is retryable."""
        try:
            form = sms.form(_callback(sms.status_callback or self._client.config.status_callback, key))
            return Sent(
                _message(_CREATE, self._client.post_once(_CREATE, self._client.path("Messages"), form)), "answered"
            )
        except TwilioIntegrationError as error:
            if not _may_be_taken(error):
                raise
            found = self._look_for(sms, key, began, error)
            if found is None:
                error.retryable = True
                raise
            return Sent(found, "found")

    def _look_for(self, sms: Sms, key: str, began: float, failed: TwilioIntegrationError) -> Message | None:
        """The message that a try may have left behind; None if it certainly left none."""
        for wait in (0.0, self._client.config.settle):
            time.sleep(wait)
            try:
                near = [message for message in self._since(began, sms.to) if message.is_from(sms)]
            except TwilioIntegrationError as trouble:
                raise _unsure(failed, key, "looking for it failed, too") from trouble
            same = [message for message in near if message.says(sms)]
            if len(same) == 1:
                return same[0]
            if near:
                sids = ", ".join(message.sid for message in same or near)
                raise _unsure(failed, key, f"it may be any or none of {sids}") from failed
        return None

    def _since(self, began: float, to: str) -> Iterator[Message]:
        """Messages to a number since a moment of ours, by Twilio's clock; without those of other operations."""
        since: datetime | None = None
        for answer, page in self._pages({"To": to}):
            since = since or _twilios_now(answer) - timedelta(seconds=time.monotonic() - began) - _SLACK
            recent = [message for message in page if message.created_at >= since]
            yield from (message for message in recent if message.sid not in self._sids)
            if not recent:  # latest first
                return

    def _pages(self, asked: dict[str, str]) -> Iterator[tuple[Response, Sequence[Message]]]:
        fetch = partial(self._client.get, "messages.list")
        answer = fetch(self._client.path("Messages"), {**asked, "PageSize": _PAGE})
        while True:
            try:
                told = answer.data
                page, following = [Message.of(each) for each in told["messages"]], told.get("next_page_uri")
            except (ValueError, LookupError, TypeError) as error:
                raise _garbled("messages.list", answer) from error
            yield answer, page
            if not following:
                return
            answer = fetch(following)


def _message(operation: str, answer: Response) -> Message:
    try:
        return Message.of(answer.data)
    except ValueError as error:
        raise _garbled(operation, answer) from error


def _garbled(operation: str, answer: Response) -> TwilioIntegrationError:
    return TwilioIntegrationError(
        f"twilio: {operation}: answered {answer.status} with something that is not Twilio's",
        service="twilio",
        operation=operation,
        status=answer.status,
        code=_GARBLED,
        hint="check PIVOTAL_TWILIO_API_BASE, and what stands between here and there",
    )


def _may_be_taken(error: TwilioIntegrationError) -> bool:
    if error.code in {UNREACHABLE, NOT_SENT}:
        return False
    return error.status is None or error.code == _GARBLED or error.status == 408 or error.status >= 500


def _unsure(failed: TwilioIntegrationError, key: str, why: str) -> TwilioIntegrationError:
    return TwilioIntegrationError(
        f"{failed.message}; whether the message was taken is not known: {why}",
        service="twilio",
        operation=_CREATE,
        status=failed.status,
        code=failed.code,
        request_id=failed.request_id,
        hint=f"look for operation_key {key} in sms_messages, and in Twilio's log of messages, before it is sent again",
    )


def _callback(url: str | None, key: str) -> str | None:
    """Where Twilio tells what becomes of a message; the URL carries the operation, for nothing else would."""
    return url and str(httpx.URL(url).copy_merge_params({"operation_key": key}))


def _twilios_now(answer: Response) -> datetime:
    told = answer.headers.get("Date")
    return parsedate_to_datetime(told).astimezone(UTC) if told else datetime.now(UTC)

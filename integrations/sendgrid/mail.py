"""Sending mail: one, or many.

SendGrid knows no idempotency keys. So a mail is sent again only if it is certain that SendGrid did not take it: it was
not reached, or said 429 or 503. Whatever else goes wrong, the mail may be on its way, and the error says so. What was
sent is on the event log, by its operation's key: a rerun finds it there and does not send it again (`past`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from itertools import chain

from integrations.calls import NOT_SENT, idempotency_key
from integrations.many import Many
from integrations.sendgrid.client import Client
from integrations.sendgrid.errors import Mistake, SendGridIntegrationError, garbled
from integrations.sendgrid.message import RECIPIENTS, Message, body, split
from integrations.sendgrid.past import Part, Past

_SEND = "mail.send"
_PLACE = re.compile(r"personalizations\.(\d+)(?:\.(.+))?")


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one of many mails.

    Args:
        index: Its place among the messages.
        message_ids: SendGrid's message ids; several if it had more than 1,000 addresses.
        error: Why SendGrid did not take it, or not all of it; None if it did.
    """

    index: int
    message_ids: tuple[str, ...] = ()
    error: SendGridIntegrationError | None = None


class Mail:
    """Sending mail."""

    def __init__(self, client: Client) -> None:
        self._client, self._past = client, Past(client)

    def send(self, message: Message, *, operation_id: str) -> str:
        """Sends one mail; with an event log, once for one operation id.

        Args:
            message: The mail; at most 1,000 addresses.
            operation_id: The caller's own name of this one doing. It travels with the mail: what SendGrid's webhooks
                say about the mail carries it as `operation_key`.

        Returns:
            SendGrid's message id; the webhooks' `sg_message_id` starts with it.

        Raises:
            SendGridIntegrationError: SendGrid refused it, or could not be reached within the budget; if it is not
                certain whether the mail is on its way, `retryable` is False and the hint says how to find out.
            EventLogError: Whether it was sent before cannot be looked up.
        """
        if len(message.recipients) > RECIPIENTS:
            raise _too_many(len(message.recipients))
        part = Part(0, _key(operation_id), message)
        known = self._past.of([part]).get(part.key)
        if isinstance(known, SendGridIntegrationError):
            raise known
        return known or self._send([part])

    def send_many(self, messages: Sequence[Message], *, operation_id: str, at_once: int = 8) -> Many[Sent]:
        """Sends many mails; that one is refused does not keep the others.

        Mails that follow each other and differ only in addresses, subject, template data and time share a request, up
        to 1,000 addresses. A mail with more addresses is split; those of one part see each other.

        Args:
            messages: The mails.
            operation_id: The caller's own name of this one doing; the n-th mail's is `<operation_id>/<n>`, from 0.
            at_once: Requests under way at a time.

        Returns:
            One result a message, in their order. SendGrid's errors are in there, none is raised.

        Raises:
            EventLogError: Whether they were sent before cannot be looked up.
        """
        parts = [*_parts(messages, operation_id)]
        known = self._past.of(parts)
        requests = _packed(part for part in parts if part.key not in known)
        with ThreadPoolExecutor(at_once, thread_name_prefix="sendgrid") as pool:
            waiting = [pool.submit(copy_context().run, self._deliver, request) for request in requests]
        before = [_before(part.index, known[part.key]) for part in parts if part.key in known]
        return Many(_results(len(messages), chain(before, *(done.result() for done in waiting))))

    def _deliver(self, request: list[Part]) -> list[Sent]:
        """One request's mails; without those that SendGrid says are wrong, if the others are right."""
        results: list[Sent] = []
        while request:
            try:
                message_id = self._send(request)
            except SendGridIntegrationError as error:
                wrong = _blamed(error, len(request)) or dict.fromkeys(range(len(request)), error)
                results += [Sent(request[place].index, error=its) for place, its in wrong.items()]
                request = [part for place, part in enumerate(request) if place not in wrong]
            else:
                return [*results, *(Sent(part.index, (message_id,)) for part in request)]
        return results

    def _send(self, request: list[Part]) -> str:
        key = request[0].key
        unsure = f"the mail may be on its way: look for events with operation_key {key} before it is sent again"
        messages = {part.key: part.message for part in request}
        with self._past.noting_doubts(request):
            answer = self._client.ask(_SEND, "post", "mail/send", body=body(messages), unsure=unsure)
            message_id = answer.headers["X-Message-Id"]
            if message_id is None:
                raise garbled(_SEND, unsure)
        self._past.tell(message_id, request)
        return message_id


def _parts(messages: Iterable[Message], operation_id: str) -> Iterator[Part]:
    for index, message in enumerate(messages):
        for number, part in enumerate(split(message)):
            name = f"{operation_id}/{index}"
            yield Part(index, _key(f"{name}/{number}" if number else name), part)


def _packed(parts: Iterable[Part]) -> Iterator[list[Part]]:
    request: list[Part] = []
    addresses: set[str] = set()
    for part in parts:
        its = part.message.recipients
        fits = len(addresses) + len(its) <= RECIPIENTS
        # An address has one row a message id: what becomes of two mails to it must not meet there.
        alike = request and part.message.common == request[0].message.common and addresses.isdisjoint(its)
        if request and not (fits and alike):
            yield request
            request, addresses = [], set()
        request.append(part)
        addresses.update(its)
    if request:
        yield request


def _before(index: int, known: str | SendGridIntegrationError) -> Sent:
    return Sent(index, error=known) if isinstance(known, SendGridIntegrationError) else Sent(index, (known,))


def _blamed(error: SendGridIntegrationError, count: int) -> dict[int, SendGridIntegrationError]:
    """Place -> its own error, if SendGrid says which of a request's mails it refuses; else nothing."""
    own: dict[int, list[Mistake]] = defaultdict(list)
    for mistake in error.mistakes:
        place = _PLACE.fullmatch(mistake.field or "")
        if place is None or int(place[1]) >= count:
            return {}
        own[int(place[1])].append(Mistake(mistake.message, place[2]))
    return {place: _refusal(tuple(mistakes), error) for place, mistakes in own.items()}


def _refusal(mistakes: tuple[Mistake, ...], error: SendGridIntegrationError) -> SendGridIntegrationError:
    return SendGridIntegrationError(
        f"SendGrid {_SEND}: {error.status} {'; '.join(map(str, mistakes))}",
        operation=_SEND,
        mistakes=mistakes,
        status=error.status,
        request_id=error.request_id,
        hint=error.hint,
    )


def _results(count: int, sent: Iterable[Sent]) -> tuple[Sent, ...]:
    """One result a message: its parts' together."""
    whole = [Sent(index) for index in range(count)]
    for one in sent:
        so_far = whole[one.index]
        whole[one.index] = Sent(one.index, so_far.message_ids + one.message_ids, so_far.error or one.error)
    return tuple(whole)


def _key(operation_id: str) -> str:
    return idempotency_key("sendgrid.mail.send", operation_id)


def _too_many(addresses: int) -> SendGridIntegrationError:
    return SendGridIntegrationError(
        f"SendGrid {_SEND}: {addresses} addresses; one mail has at most {RECIPIENTS:,}",
        operation=_SEND,
        code=NOT_SENT,
        hint="send_many splits it, or sends one to each",
    )

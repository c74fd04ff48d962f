"""Sending mail: one, or many.

SendGrid knows no idempotency keys. So a mail is sent again only if it is certain that SendGrid did not take it: it was
not reached, or said 429 or 503. Whatever else goes wrong, the mail may be on its way, and the error says so.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

from integrations.calls import NOT_SENT, idempotency_key
from integrations.pseudonyms import recipient_of
from integrations.sendgrid.client import Client
from integrations.sendgrid.errors import Mistake, SendGridIntegrationError
from integrations.sendgrid.message import RECIPIENTS, Message, body, parts

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


@dataclass(frozen=True, slots=True)
class SentMany:
    """What became of many mails.

    Args:
        results: One a message, in their order.
    """

    results: tuple[Sent, ...]

    @property
    def total(self) -> int:
        """How many messages there were."""
        return len(self.results)

    @property
    def successful(self) -> int:
        """How many SendGrid took, to every address."""
        return self.total - self.failed

    @property
    def failed(self) -> int:
        """How many it did not take, or not to every address."""
        return sum(result.error is not None for result in self.results)


class Mail:
    """Sending mail."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def send(self, message: Message, *, operation_id: str) -> str:
        """Sends one mail.

        Args:
            message: The mail; at most 1,000 addresses.
            operation_id: The caller's own name of this one doing. It travels with the mail: what SendGrid's webhooks
                say about the mail carries it as `operation_key`.

        Returns:
            SendGrid's message id; the webhooks' `sg_message_id` starts with it.

        Raises:
            SendGridIntegrationError: SendGrid refused it, or could not be reached within the budget; if it is not
                certain whether the mail is on its way, `retryable` is False and the hint says how to find out.
        """
        if len(message.recipients) > RECIPIENTS:
            raise _unsendable(f"{len(message.recipients)} addresses; one mail has at most {RECIPIENTS:,}")
        return self._send({_key(operation_id): message})

    def send_many(self, messages: Sequence[Message], *, operation_id: str, at_once: int = 8) -> SentMany:
        """Sends many mails; that one is refused does not keep the others.

        Mails that follow each other and differ only in addresses, subject, template data and time share a request, up
        to 1,000 addresses. A mail with more addresses is split; those of one part see each other.

        Args:
            messages: The mails.
            operation_id: The caller's own name of this one doing; the n-th mail's is `<operation_id>/<n>`, from 0.
            at_once: Requests under way at a time.

        Returns:
            One result a message, in their order. Errors are in there, none is raised.
        """
        with ThreadPoolExecutor(at_once, thread_name_prefix="sendgrid") as pool:
            waiting = [
                pool.submit(copy_context().run, self._deliver, request, operation_id) for request in _packed(messages)
            ]
        return SentMany(_results(len(messages), (one for done in waiting for one in done.result())))

    def _deliver(self, request: _Request, operation_id: str) -> Iterable[Sent]:
        """One request's mails; without those that SendGrid says are wrong, if the others are right."""
        results: list[Sent] = []
        while request:
            try:
                message_id = self._send({_key(f"{operation_id}/{index}"): part for index, part in request.items()})
            except SendGridIntegrationError as error:
                wrong = _blamed(error, list(request)) or dict.fromkeys(request, error)
                results += [Sent(index, error=its) for index, its in wrong.items()]
                request = {index: part for index, part in request.items() if index not in wrong}
            else:
                return [*results, *(Sent(index, (message_id,)) for index in request)]
        return results

    def _send(self, messages: Mapping[str, Message]) -> str:
        key = next(iter(messages))
        unsure = f"the mail may be on its way: look for events with operation_key {key} before it is sent again"
        answer = self._client.ask(_SEND, "post", "mail/send", body=body(messages), unsure=unsure)
        message_id = answer.headers["X-Message-Id"]
        if message_id is None:
            raise SendGridIntegrationError("SendGrid mail.send: no message id", operation=_SEND, hint=unsure)
        self._tell(message_id, messages)
        return message_id

    def _tell(self, message_id: str, messages: Mapping[str, Message]) -> None:
        """The event that `email_messages` has a mail's first row from; without addresses."""
        recipients = [
            {"recipient": recipient_of(message_id, address), "operation_key": key}
            for key, message in messages.items()
            for address in message.recipients
        ]
        first = next(iter(messages.values()))
        facts = {"template_id": first.template_id, "categories": [*first.categories], "recipients": recipients}
        self._client.tell("email.sent", ("message", message_id), {"message_id": message_id, **facts}, key=message_id)


_Request = dict[int, Message]
"""The mails of one request, by their index."""


def _packed(messages: Iterable[Message]) -> Iterator[_Request]:
    request: _Request = {}
    addresses: set[str] = set()
    for index, message in enumerate(messages):
        for part in parts(message):
            its = set(part.recipients)
            fits = len(addresses) + len(part.recipients) <= RECIPIENTS
            # An address has one row a message id: what becomes of two mails to it must not meet there.
            if request and not (fits and addresses.isdisjoint(its) and part.common == _any(request).common):
                yield request
                request, addresses = {}, set()
            request[index] = part
            addresses |= its
    if request:
        yield request


def _any(request: _Request) -> Message:
    return next(iter(request.values()))


def _blamed(error: SendGridIntegrationError, indices: list[int]) -> dict[int, SendGridIntegrationError]:
    """Index -> its own error, if SendGrid says which mails of a request it refuses; else nothing."""
    own: dict[int, list[Mistake]] = defaultdict(list)
    for mistake in error.mistakes:
        place = _PLACE.fullmatch(mistake.field or "")
        if place is None or int(place[1]) >= len(indices):
            return {}
        own[indices[int(place[1])]].append(Mistake(mistake.message, place[2]))
    return {index: _refusal(tuple(mistakes), error) for index, mistakes in own.items()}


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


def _unsendable(why: str) -> SendGridIntegrationError:
    return SendGridIntegrationError(
        f"SendGrid {_SEND}: {why}", operation=_SEND, code=NOT_SENT, hint="send_many splits it, or sends one to each"
    )

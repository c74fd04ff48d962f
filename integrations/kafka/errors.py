"""Kafka's failures in our words: who was asked for what, why it failed, and what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from errors import IntegrationError

if TYPE_CHECKING:
    from integrations.kafka.connection import Connection

T = TypeVar("T")

_PAUSE = 0.05
"""Seconds before another broker is asked."""

_TLS = "check `tls`: `ca` is the authority that signed the brokers' certificates, which name the hosts of `brokers`"


class KafkaIntegrationError(IntegrationError):
    """Kafka's brokers refused a call or could not be reached. `code` is Kafka's own name of the failure."""


@contextmanager
def told(connection: Connection, operation: str) -> Iterator[None]:
    """Turns what kafka-python raises in the block into a `KafkaIntegrationError`.

    Args:
        connection: Whom the block talks to.
        operation: What it does: `poll`.
    """
    from kafka.errors import KafkaError

    try:
        yield
    except KafkaError as error:
        raise in_our_words(connection, operation, error) from None


def patiently(connection: Connection, operation: str, call: Callable[[], T]) -> T:
    """What a call returns that any broker can answer: one that is away may be the first that is asked.

    Args:
        connection: Whom it talks to, and how long that may take.
        operation: What it does: `topics`.
        call: The call.

    Raises:
        KafkaIntegrationError: No broker answers in time, or one refuses.
    """
    deadline = time.monotonic() + connection.timeout
    while True:
        try:
            with told(connection, operation):
                return call()
        except KafkaIntegrationError as error:
            if not error.retryable or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)


def in_our_words(connection: Connection, operation: str, error: Exception) -> KafkaIntegrationError:
    """An error of kafka-python's, without a secret.

    Args:
        connection: Who was asked.
        operation: For what.
        error: The error.
    """
    error = _cause(error)
    is_turned_away = operation == "connect" and _is_turned_away(connection, error)
    message, hint = _message(connection, error, is_turned_away=is_turned_away)
    return KafkaIntegrationError(
        f"Kafka at {connection.brokers}: {message}",
        service="kafka",
        operation=operation,
        code=type(error).__name__,
        hint=hint,
        retryable=bool(getattr(error, "retriable", False)) and not is_refusal(error) and not is_turned_away,
    )


def is_refusal(error: Exception) -> bool:
    """Whether brokers that are asked again will say the same: a wrong password, a certificate that nobody trusts."""
    from kafka import errors

    refused = errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError
    return isinstance(error, refused) or _is_untrusted(error)


def _cause(error: Exception) -> Exception:
    """What a transaction failed for, where kafka-python has it in a text: `... error state: [Error 90] ...`."""
    from kafka import errors

    named = re.search(r"\[Error \d+\] (\w+)", str(error)) if type(error) is errors.KafkaError else None
    kind = getattr(errors, named[1], None) if named else None
    return kind() if kind else error


def _is_turned_away(connection: Connection, error: Exception) -> bool:
    """Whether brokers may have closed a connection for its password; a broker that dies closes those that it had."""
    return bool(connection.username) and "disconnected" in f"{error} {error.__cause__}"


def _is_untrusted(error: Exception) -> bool:
    return any(word in str(error) for word in ("CERTIFICATE", "WRONG_VERSION_NUMBER", "ALERT_"))


def _message(connection: Connection, error: Exception, *, is_turned_away: bool) -> tuple[str, str]:
    from kafka import errors

    told: list[tuple[Any, str, str]] = [
        (
            errors.SaslAuthenticationFailedError,
            f"the user or the password is refused ({connection.mechanism})",
            "check `auth`: its user must be known to the brokers by this `mechanism`",
        ),
        (
            (errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError),
            f"this listener does not know {connection.mechanism}",
            "check `mechanism` under `auth`, and the port: each listener has its own",
        ),
        (
            errors.TransactionalIdAuthorizationFailedError,
            "not allowed to write in transactions",
            "give the user of `auth` the right (ACL) to write and describe the transactional id",
        ),
        (
            (errors.AuthorizationError, errors.SecurityDisabledError),
            f"not allowed ({_short(error)})",
            "give the user of `auth` the right (ACL) to describe and read (or write) the topic, and to read the group",
        ),
        (
            (errors.ProducerFencedError, errors.InvalidProducerEpochError, errors.InvalidTxnStateError),
            "the transaction was ended by the brokers: another run of the same name has begun, or it took too long",
            "see that the pipeline runs in one place; a run that takes too long for a transaction must load less",
        ),
        (
            errors.InvalidTransactionTimeoutError,
            "the brokers do not let a transaction take so long",
            "raise transaction.max.timeout.ms on the brokers (Kafka's default, 15 minutes, is enough)",
        ),
        (
            (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError),
            "a record is larger than its topic takes",
            "give the user of `auth` the right (ACL) to describe the topic's configs: such a row is then quarantined",
        ),
        (
            errors.CorruptRecordError,
            f"a record is damaged ({_short(error)})",
            "look at the broker's disk; `pivotal state set` leads past it",
        ),
        (errors.UnsupportedCodecError, f"records are compressed in a way that is not known ({_short(error)})", ""),
        (errors.LogTruncationError, "records that had been read are gone; others are in their place", ""),
    ]
    if isinstance(error, ValueError):
        return "these are no addresses of brokers", "write host:port, comma-separated: kafka1:9092, kafka2:9092"
    if _is_untrusted(error):
        return f"TLS fails ({_short(error)})", _TLS
    for kind, message, hint in told:
        if isinstance(error, kind):
            return message, hint
    if is_turned_away:
        closed = "the brokers close the connection, as they do if the user or the password is refused"
        return f"{closed} ({connection.mechanism})", "check `auth`, then the brokers' own log"
    if isinstance(error, errors.RetriableError):
        away = f"no broker has answered for {connection.timeout:g} s ({_short(error)})"
        return away, "check `brokers`, and that the port is one for clients of this kind (`tls`, `auth`)"
    return _short(error), ""


def _short(error: Exception) -> str:
    """The error in a line; its cause, where kafka-python only says that it has tried for long."""
    cause = error.__cause__ or error
    return " ".join(f"{type(cause).__name__}: {cause}".split())[:200]

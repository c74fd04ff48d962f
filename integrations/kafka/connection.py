"""How Kafka's brokers are reached: addresses, SASL, TLS, patience. For consumers and producers alike."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from integrations.calls import silence
from integrations.kafka.errors import KafkaIntegrationError, in_our_words, is_refusal
from integrations.kafka.moves import client_class, find_leaders_again

silence("kafka")  # it logs passwords at DEBUG

T = TypeVar("T")

_PATIENCE = 3
"""How often brokers may close a connection that authenticates before we give up."""

_BACKOFF = 20
"""Milliseconds between two tries; a transaction begins with several."""

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS.

    Args:
        ca: File with the certificates of the authorities that are trusted; the system's if empty.
        certificate: File with the client's own certificate, where the brokers ask for one.
        key: File with its key.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """Brokers, and how they are reached.

    Args:
        brokers: host:port, comma-separated; one that answers is enough.
        username: The user, for SASL; nobody is authenticated if empty.
        password: The user's password.
        mechanism: SASL's mechanism.
        tls: TLS; None is plain text.
        client_id: What the brokers' logs call us.
        timeout: Seconds that the brokers may take for an answer, and may be away.
    """

    brokers: str
    username: str = ""
    password: str = field(default="", repr=False)
    mechanism: Mechanism = "PLAIN"
    tls: Tls | None = None
    client_id: str = "pivotal"
    timeout: float = 30.0

    def open(self, client: Callable[..., T], **options: Any) -> T:  # noqa: ANN401  (kafka-python's own)
        """A client of kafka-python's, connected.

        Args:
            client: `KafkaConsumer`, `KafkaProducer` or `KafkaAdminClient`.
            options: Its own options.

        Raises:
            KafkaIntegrationError: No broker answers in time, or one refuses us.
        """
        from kafka.errors import KafkaError

        failures: list[Exception] = []
        wires: list[Any] = []
        try:
            opened = client(**self._options(), kafka_client=partial(_wire, failures, wires), **options)
        except (KafkaError, ValueError) as error:
            for wire in wires:
                wire.close()  # its thread goes on, otherwise
            error.__cause__ = next((each for each in reversed(failures) if each is not error), None)
            raise in_our_words(self, "connect", error) from None
        if hasattr(opened, "_fetcher"):  # a consumer
            find_leaders_again(opened)
        return opened

    def _options(self) -> dict[str, Any]:
        security = ("SASL_" if self.username else "") + ("PLAINTEXT" if self.tls is None else "SSL")
        milliseconds = round(self.timeout * 1000)
        return {
            "bootstrap_servers": [broker.strip() for broker in self.brokers.split(",")],
            "client_id": self.client_id,
            "security_protocol": security,
            "sasl_mechanism": self.mechanism if self.username else None,
            "sasl_plain_username": self.username or None,
            "sasl_plain_password": _Hidden(self.password) if self.password else None,
            "ssl_context": self._context(self.tls) if self.tls is not None else None,
            "bootstrap_timeout_ms": milliseconds,
            "request_timeout_ms": milliseconds,
            "reconnect_backoff_max_ms": 1000,
            "retry_backoff_ms": _BACKOFF,
        }

    def _context(self, tls: Tls) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=tls.ca or None)
            if tls.certificate:
                context.load_cert_chain(tls.certificate, tls.key or None)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(filter(None, (tls.ca, tls.certificate, tls.key)))
            reason = getattr(error, "strerror", None) or str(error)
            raise KafkaIntegrationError(
                f"TLS's files cannot be read ({files}): {reason}",
                service="kafka",
                operation="connect",
                hint="`ca`, `certificate` and `key` under `tls` are PEM files",
            ) from None
        return context


class _Hidden(str):
    """A text that is not shown: kafka-python's admin client logs its options."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _wire(failures: list[Exception], wires: list[Any], **options: Any) -> Any:  # noqa: ANN401  (it has no types)
    """kafka-python's connections, which end the first attempt to connect if the brokers refuse us.

    By itself it goes on until its time is up (an account may be locked by then), and does not say why.

    Args:
        failures: Takes what went wrong, the newest last.
        wires: Takes what is returned.
        options: kafka-python's.
    """
    from kafka.net.manager import KafkaConnectionManager
    from kafka.net.selector import NetworkSelector

    class Manager(KafkaConnectionManager):  # type: ignore[misc]
        def __init__(self, net: object, **configs: Any) -> None:  # noqa: ANN401
            super().__init__(net, **configs)
            self.cluster.config["retry_backoff_ms"] = _BACKOFF  # otherwise it waits before it looks for a topic
            # Its clients' own option for this goes nowhere: who reads a topic that was deleted would make it again.
            self.cluster.config["allow_auto_create_topics"] = False

        def get_connection(self, node_id: object, **more: Any) -> Any:  # noqa: ANN401
            connection = super().get_connection(node_id, **more)
            if not connection.init_future.is_done:
                connection.init_future.add_errback(failures.append)
                connection.init_future.add_callback(lambda _: failures.clear())
            return connection

        def maybe_raise_auth_failure(self, node_id: object) -> None:
            if failures and (is_refusal(failures[-1]) or self._is_turned_away()):
                raise failures[-1]
            super().maybe_raise_auth_failure(node_id)

        async def wait_for(self, future: object, timeout_ms: float | None) -> Any:  # noqa: ANN401
            """Nothing is waited for without end."""
            return await super().wait_for(
                future, self.config["request_timeout_ms"] if timeout_ms is None else timeout_ms
            )

        def _is_turned_away(self) -> bool:
            """Whether brokers close each connection that authenticates: their reason is easily lost on the way."""
            closed = [each for each in failures if "disconnected" in str(each)]
            return not self.bootstrapped and self.config["sasl_mechanism"] is not None and len(closed) > _PATIENCE

    net = NetworkSelector(**options)
    try:
        wires.append(client_class()(net, Manager(net, **options)))
    except ValueError:  # of an address
        net.close()
        raise
    return wires[-1]

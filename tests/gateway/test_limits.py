"""What a receiver on the open Internet does with senders that are slow, many, or ask for two things at once."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.envelope import Event
from events.sqlite import SqliteEventLog
from tests.gateway.conftest import Gateway, Serve, serving
from tests.gateway.raw import answer, chunked, connected, exchange, request, rest, statuses, stripe
from tests.gateway.signing import JSON, body_of, stripe_event, stripe_headers

HEALTH = request("GET", "/healthz", {})


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A receiver with the usual limits."""
    with closing(SqliteEventLog(tmp_path_factory.mktemp("log") / "events.db")) as log, serving(log, {}) as served:
        yield served


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["reason"] for record in caplog.records if hasattr(record, "reason")]


def drip(port: int, before: bytes, drops: bytes, size: int = 1) -> bytes:
    """Sends some bytes at once and others bit by bit, without end; returns what was answered."""
    coming = cycle(drops[at : at + size] for at in range(0, len(drops), size))
    with connected(port) as connection:
        connection.sendall(before)
        connection.settimeout(0.02)
        answered = b""
        while True:
            try:
                if not (received := connection.recv(65536)):
                    return answered
                answered += received
            except TimeoutError:
                connection.sendall(next(coming))
            except ConnectionError:
                return answered


def test_a_connection_on_which_nothing_comes_is_ended(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    gateway = serve(gateway_header_timeout=0.1)

    with connected(gateway.port) as connection:
        assert rest(connection) == b""
    assert reasons(caplog) == []


@pytest.mark.parametrize(
    "before", [b"", b"POST /webhooks/stripe HTTP/1.1\r\n", HEALTH], ids=["at once", "half", "behind another"]
)
def test_headers_that_come_a_byte_at_a_time_are_408(
    serve: Serve, caplog: pytest.LogCaptureFixture, before: bytes
) -> None:
    gateway = serve(gateway_header_timeout=0.4)

    answered = drip(
        gateway.port, before, b"X-Slow: 1\r\n" if before.startswith(b"POST") else b"POST /x HTTP/1.1\r\nX: "
    )

    assert answered.count(b"HTTP/1.1 408 Request Timeout") == 1
    assert reasons(caplog) == ["no whole headers within 0.4 s"]


@pytest.mark.parametrize(
    ("before", "drops"),
    [(b"", b"\r\n"), (request("POST", "/nowhere", {"Content-Length": "9999"}), b"x")],
    ids=["empty lines", "a body that nobody waits for"],
)
def test_who_keeps_a_connection_busy_with_nothing_is_cut_off(serve: Serve, before: bytes, drops: bytes) -> None:
    gateway = serve(gateway_header_timeout=0.2, gateway_body_timeout=0.2)

    answered = drip(gateway.port, before, drops)

    assert answered.count(b"HTTP/1.1") == (1 if before else 0)


def test_who_does_not_read_its_answers_does_not_keep_its_place(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    gateway = serve(gateway_connection_limit=1, gateway_body_timeout=0.2, gateway_header_timeout=0.2)

    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(5)
        connection.connect(("127.0.0.1", gateway.port))
        with suppress(ConnectionError):
            connection.sendall(request("GET", "/metrics", {}) * 2000)
        while "an answer was not read within 0.2 s" not in reasons(caplog):
            time.sleep(0.01)
        while exchange(gateway.port, HEALTH)[0].status != 200:
            time.sleep(0.01)


def test_a_request_that_is_slow_but_in_time_is_taken(serve: Serve) -> None:
    gateway = serve(gateway_header_timeout=30)
    raw = stripe()

    with connected(gateway.port) as connection:
        for at in range(0, len(raw), 50):
            connection.sendall(raw[at : at + 50])
            time.sleep(0)
        assert answer(connection)[0].status == 200


def test_a_large_body_has_its_time_for_each_mib(serve: Serve) -> None:
    gateway = serve(gateway_body_timeout=1.5, webhook_body_limit=4_000_000)
    mib = b" " * 1_048_576
    head = request("POST", "/webhooks/stripe", {**JSON, "Content-Length": str(3 * len(mib))})

    with connected(gateway.port) as connection:
        connection.sendall(head + mib)
        for _ in range(2):
            time.sleep(0.8)
            connection.sendall(mib)
        assert answer(connection)[0].status == 401


def test_a_body_that_is_late_is_asked_to_come_back(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    gateway = serve(gateway_body_timeout=0.2)

    refused, _ = exchange(gateway.port, stripe(Content_Length="9999"))

    assert (refused.status, refused.headers["retry-after"]) == (503, "5")
    assert reasons(caplog)[0] == "no whole body within 0.2 s"


def test_a_header_without_end_is_refused_before_it_fills_the_memory(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = serve(gateway_header_limit=1000)
    begun = b"POST /webhooks/stripe HTTP/1.1\r\nHost: test\r\nX: "
    trailer = chunked(body_of(stripe_event()))[:-2] + b"X: "

    answers = [drip(gateway.port, raw, b"x" * 300, size=300) for raw in (begun, trailer)]

    assert [statuses(each) for each in answers] == [[431], [431]]
    assert reasons(caplog)[0] == "more than 1000 bytes of headers"


def test_a_trailer_is_no_header(usual: Gateway) -> None:
    body = body_of(stripe_event())
    signature = stripe_headers(body)["Stripe-Signature"]
    unsigned = chunked(body, trailers=f"Stripe-Signature: {signature}\r\n".encode())
    unsigned = unsigned.replace(b"Stripe-Signature", b"X-Signature", 1)

    assert exchange(usual.port, unsigned)[0].status == 401


def test_connections_above_the_limit_are_asked_to_come_back(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    gateway = serve(gateway_connection_limit=2)

    with connected(gateway.port) as one, connected(gateway.port):
        one.sendall(HEALTH)
        assert answer(one)[0].status == 200
        refused, body = exchange(gateway.port, stripe())

        assert (refused.status, refused.headers["retry-after"], body) == (503, "5", '{"error":"try again later"}')
        assert refused.headers["connection"] == "close"
        assert reasons(caplog) == ["too many connections"]
        one.sendall(HEALTH)
        assert answer(one)[0].status == 200

    while exchange(gateway.port, stripe())[0].status != 200:  # until it has seen that they are gone
        time.sleep(0.01)


def test_requests_on_the_heels_of_each_other_are_answered_in_order(usual: Gateway) -> None:
    before = usual.log.head()
    with connected(usual.port) as connection:
        connection.sendall(stripe() + HEALTH + stripe_forged() + stripe(Connection="close") + HEALTH)
        answers = rest(connection)

    assert statuses(answers) == [200, 200, 401, 200]
    assert usual.log.head() - before == 2


def stripe_forged() -> bytes:
    return stripe(Stripe_Signature=stripe_headers(b"another")["Stripe-Signature"])


@pytest.mark.parametrize("behind", [b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"], ids=["no HTTP", "no host"])
def test_what_is_wrong_behind_a_good_request_does_not_take_its_answer(usual: Gateway, behind: bytes) -> None:
    before = usual.log.head()
    with connected(usual.port) as connection:
        connection.sendall(stripe() + behind)
        answers = rest(connection)

    assert statuses(answers) == [200]
    assert usual.log.head() - before == 1


def test_what_is_wrong_in_the_body_of_a_second_request_is_not_told_in_the_place_of_the_first(usual: Gateway) -> None:
    wrong = chunked(body_of(stripe_event())).partition(b"\r\n\r\n")[0] + b"\r\n\r\nno size\r\n"

    with connected(usual.port) as connection:
        connection.sendall(stripe() + wrong)
        answers = rest(connection)

    assert statuses(answers) in ([], [200])


def test_an_answer_that_is_a_head_alone_does_not_wait_for_its_body(usual: Gateway) -> None:
    with connected(usual.port) as connection:
        connection.sendall(request("HEAD", "/healthz", {}) + request("GET", "/healthz", {"Connection": "close"}))
        answers = rest(connection)

    assert statuses(answers) == [200, 200]
    assert answers.count(b'{"status":"ok"}') == 1


def test_who_asks_first_whether_to_send_is_told(usual: Gateway) -> None:
    raw = stripe(Expect="100-continue")
    head, separator, body = raw.partition(b"\r\n\r\n")

    with connected(usual.port) as connection:
        connection.sendall(head + separator)
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert answer(connection)[0].status == 200
    for these, instead, status in (
        (b"application/json", b"text/plain", b"415"),
        (b"Content-Length: ", b"Content-Length: 99999", b"413"),
    ):
        with connected(usual.port) as connection:
            connection.sendall((head + separator).replace(these, instead))
            assert connection.recv(65536).startswith(b"HTTP/1.1 " + status)


class Slow(SqliteEventLog):
    """A log whose disk stands still until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked, self.let_go = threading.Event(), threading.Event()

    def publish(self, events: Sequence[Event]) -> list[bool]:
        self.asked.set()
        assert self.let_go.wait(30)
        return super().publish(events)


def test_more_than_may_wait_for_the_log_is_503_until_the_log_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        closing(Slow(tmp_path / "events.db")) as log,
        serving(log, {"webhook_backlog_limit": 1}) as gateway,
        ThreadPoolExecutor() as threads,
    ):
        first = threads.submit(exchange, gateway.port, stripe())
        assert log.asked.wait(30)
        refused, _ = exchange(gateway.port, stripe())
        log.let_go.set()

        assert first.result()[0].status == 200
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert reasons(caplog) == ["1 events wait for the event log; 1 may"]
        assert exchange(gateway.port, stripe())[0].status == 200
        assert log.head() == 2


PIECES = (
    b"POST /webhooks/stripe HTTP/1.1\r\n", b"GET /metrics HTTP/1.0\r\n", b"Host: test\r\n", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Type: application/json\r\n", b"Stripe-Signature: t=1,v1=00\r\n",
    b"Connection: close\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"\r\n",
    b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"f" * 17, b"\0", b"\n", b": ", "é".encode(),
)  # fmt: skip
PARTS = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)), max_size=25)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS, cut=st.integers(1, 200))
def test_whatever_comes_is_answered_without_a_fault_of_ours(
    usual: Gateway, caplog: pytest.LogCaptureFixture, parts: list[bytes], cut: int
) -> None:
    before, sent = usual.log.head(), b"".join(parts)

    with connected(usual.port) as connection, suppress(OSError):
        for at in range(0, len(sent), cut):
            connection.sendall(sent[at : at + cut])
        connection.shutdown(socket.SHUT_WR)
        assert all(status < 500 for status in statuses(rest(connection)))

    assert usual.log.head() == before
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []

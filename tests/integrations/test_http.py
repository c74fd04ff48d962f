from __future__ import annotations

import asyncio
import logging
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from errors import IntegrationError
from integrations.breaker import BreakerPolicy
from integrations.calls import RetryBudget
from integrations.http import (
    AsyncHttpClient,
    ClientCredentials,
    Credential,
    HttpClient,
    Limits,
    Refusal,
    Response,
    clean_url,
)
from tests.integrations.web import Asked, Reply, Web

QUICK = RetryBudget(attempts=4, first_wait=0.001, longest_wait=2.0)


def client(web: Web, **options: Any) -> HttpClient:
    return HttpClient(web.url, service="shop", **{"budget": QUICK, **options})


def test_an_answer_has_data_status_headers_and_time(web: Web) -> None:
    web.replies([Reply({"id": 1}, headers={"X-Total": "7"})])
    with client(web, headers={"Accept-Language": "de"}) as http:
        answer = http.get("/orders", params={"page": 2})
    assert answer.data == {"id": 1}
    assert (answer.status, answer.reason, answer.headers["x-total"]) == (200, "OK", "7")
    assert answer.elapsed > 0
    assert web.asked[0].params == {"page": "2"}
    assert web.asked[0].headers["accept-language"] == "de"


def test_an_answer_without_a_body_has_no_data(web: Web) -> None:
    web.replies([Reply(status=204)])
    with client(web) as http:
        assert http.get("/orders").data is None


def test_a_post_sends_json(web: Web) -> None:
    with client(web) as http:
        http.post("/orders", json={"id": 7})
    assert (web.asked[0].method, web.asked[0].body) == ("POST", b'{"id":7}')


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_every_method_has_a_name_of_its_own(web: Web, method: str) -> None:
    with client(web) as http:
        getattr(http, method)("/orders/7", headers={"X-Trace": "1"})
    assert (web.asked[0].method, web.asked[0].path) == (method.upper(), "/orders/7")
    assert web.asked[0].headers["x-trace"] == "1"


@pytest.mark.parametrize(
    ("credential", "header", "value"),
    [
        (Credential.bearer("t0ken"), "authorization", "Bearer t0ken"),
        (Credential.basic("ada", "pa:ss"), "authorization", "Basic YWRhOnBhOnNz"),
        (Credential.api_key("k3y"), "x-api-key", "k3y"),
        (Credential.api_key("k3y", header="X-Token"), "x-token", "k3y"),
    ],
)
def test_a_credential_is_sent_as_its_header_and_does_not_show(
    web: Web, credential: Credential, header: str, value: str
) -> None:
    with client(web, credential=credential) as http:
        http.get("/")
    assert web.asked[0].headers[header] == value
    assert value not in repr(credential)


def test_a_redirect_to_another_host_does_not_take_the_credential_along(web: Web) -> None:
    other = Web()
    try:
        web.replies([Reply(status=302, headers={"Location": f"{other.url}/elsewhere"})])
        with client(web, credential=Credential.api_key("k3y")) as http:
            http.get("/")
        assert "x-api-key" in web.asked[0].headers
        assert "x-api-key" not in other.asked[0].headers
    finally:
        other.stop()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_failure_that_may_pass_is_tried_again_within_the_budget(web: Web, status: int) -> None:
    web.replies([Reply(status=status)])
    with client(web) as http, pytest.raises(IntegrationError) as caught:
        http.get("/orders")
    assert len(web.asked) == QUICK.attempts
    assert (caught.value.status, caught.value.retryable) == (status, True)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422])
def test_a_refusal_is_not_tried_again(web: Web, status: int) -> None:
    web.replies([Reply({"error": "no"}, status=status, headers={"X-Request-Id": "req_7"})])
    with client(web) as http, pytest.raises(IntegrationError) as caught:
        http.get("/orders", operation="orders.list")
    assert len(web.asked) == 1
    error = caught.value
    assert (error.service, error.operation, error.status, error.request_id) == ("shop", "orders.list", status, "req_7")
    assert not error.retryable


def test_a_refusal_is_told_in_the_services_own_words_and_without_a_query_that_is_personal(web: Web) -> None:
    web.replies([Reply({"code": 7}, status=400), Reply({}, status=404)])

    def read(answer: Response) -> Refusal | None:
        return Refusal("no such number", "7", "look it up", "RQ1") if answer.data else None

    with client(web, refusal=read, private_query=True) as http:
        for expected in (("no such number", "7", "look it up", "RQ1"), ("answered 404", None, "check the id", None)):
            with pytest.raises(IntegrationError) as caught:
                http.get("/numbers", params={"to": "555"})
            error = caught.value
            assert expected[0] in error.message
            assert (error.code, error.request_id) == (expected[1], expected[3])
            assert expected[2] in str(error.hint)
            assert "555" not in str(error)


def test_one_attempt_is_one_call_whatever_comes_of_it(web: Web) -> None:
    web.replies([Reply(status=503), Reply({"ok": True})])
    with client(web) as http:
        with pytest.raises(IntegrationError):
            http.attempt("GET", "/")
        assert http.attempt("GET", "/").data == {"ok": True}
    assert len(web.asked) == 2


def test_a_call_that_recovers_gives_its_answer(web: Web) -> None:
    web.replies([Reply(status=500), Reply(status=None), Reply(b"{", promised=5), Reply({"ok": True})])
    with client(web) as http:
        assert http.get("/").data == {"ok": True}
    assert len(web.asked) == 4


def test_a_post_is_sent_once_unless_it_is_said_to_be_repeatable(web: Web) -> None:
    web.replies([Reply(status=503)])
    with client(web) as http:
        for repeatable in (None, True):
            with pytest.raises(IntegrationError):
                http.post("/orders", json={}, repeatable=repeatable)
    assert len(web.asked) == 1 + QUICK.attempts


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_change_with_an_idempotency_key_is_repeated_with_the_same_key(web: Web, method: str) -> None:
    web.replies([Reply(status=503), Reply(status=None), Reply({"id": 1})])
    with client(web) as http:
        assert http.request(method, "/orders", json={}, idempotency_key="order-1").data == {"id": 1}
    assert [asked.headers["idempotency-key"] for asked in web.asked] == ["order-1"] * 3


@pytest.mark.parametrize(
    ("reply", "retryable"), [(Reply(status=500), False), (Reply(status=None), False), (Reply(status=429), True)]
)
def test_whether_a_change_without_a_key_can_be_tried_again_depends_on_whether_it_may_have_been_done(
    web: Web, reply: Reply, retryable: bool
) -> None:
    web.replies([reply])
    with client(web) as http, pytest.raises(IntegrationError) as caught:
        http.post("/orders", json={})
    assert (len(web.asked), caught.value.retryable) == (1, retryable)


def test_retry_after_in_seconds_and_as_a_date_is_honoured(web: Web) -> None:
    soon = format_datetime(datetime.now(UTC) - timedelta(seconds=5), usegmt=True)
    web.replies(
        [Reply(status=429, headers={"Retry-After": "0"}), Reply(status=503, headers={"Retry-After": soon}), Reply({})]
    )
    with client(web) as http:
        http.get("/")
    assert len(web.asked) == 3


def test_a_retry_after_beyond_the_budget_ends_the_call_at_once(web: Web) -> None:
    web.replies([Reply(status=429, headers={"Retry-After": "3600"})])
    with client(web) as http, pytest.raises(IntegrationError, match="asks to wait 3600 s") as caught:
        http.get("/")
    assert len(web.asked) == 1
    assert caught.value.retry_after == 3600


def test_nobody_listening_is_an_error_that_a_retry_may_mend() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    http = HttpClient(f"http://127.0.0.1:{port}", service="shop", budget=QUICK)
    with http, pytest.raises(IntegrationError, match="connect error") as caught:
        http.get("/")
    assert caught.value.retryable
    assert caught.value.status is None


def test_a_redirect_loop_ends(web: Web) -> None:
    web.replies([Reply(status=302, headers={"Location": "/again"})])
    with client(web) as http, pytest.raises(IntegrationError, match="too many redirects"):
        http.get("/")
    assert len(web.asked) < 10


def test_an_answer_that_is_too_long_is_not_read_to_its_end(web: Web) -> None:
    web.replies([Reply(b"x" * 5000)])
    with client(web, limits=Limits(size=1000)) as http, pytest.raises(IntegrationError, match="over 1000 bytes"):
        http.get("/")
    assert len(web.asked) == 1


@pytest.fixture
def trickle() -> Iterator[str]:
    """A server that sends one byte after the other, for ever, to whoever connects."""
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
                while not done.wait(0.01):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        break

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    done.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_an_answer_that_trickles_in_for_ever_ends_at_the_deadline(trickle: str) -> None:
    once = RetryBudget(attempts=1)
    http = HttpClient(trickle, service="shop", limits=Limits(timeout=10.0, deadline=0.05), budget=once)
    with http, pytest.raises(IntegrationError, match=r"no end after 0\.05 s") as caught:
        http.get("/")
    assert caught.value.retryable


def test_no_secret_shows_in_an_error_a_url_or_a_log(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    web.replies([Reply({}), Reply(status=503)])
    http = client(web, credential=Credential.bearer("t0ken"), secrets=["hush/hush"])
    params: dict[str, Any] = {"api_key": "k3y", "q": "hush/hush", "mail": "Bearer t0ken", "page": 3}
    with http:
        url = http.get("/orders", params=params).url
        with pytest.raises(IntegrationError) as caught:
            http.get("/orders", params=params)
    assert "page=3" in url
    for text in (url, str(caught.value), repr(caught.value), caplog.text):
        assert not [secret for secret in ("k3y", "hush/hush", "hush%2Fhush", "t0ken") if secret in text]


@pytest.mark.parametrize("credential", [Credential.bearer("t0ken\n"), Credential.api_key("t0ken\n")])
def test_a_credential_with_the_end_of_its_files_line_does_not_show(web: Web, credential: Credential) -> None:
    with client(web, credential=credential) as http, pytest.raises(IntegrationError, match="header value") as caught:
        http.get("/orders")
    assert "t0ken" not in str(caught.value)


def test_a_token_that_is_repeated_without_its_scheme_does_not_show(web: Web) -> None:
    with client(web, credential=Credential.bearer("t0ken")) as http:
        assert http.without_secrets("the token t0ken is unknown") == "the token *** is unknown"


def test_a_url_is_shown_without_user_password_and_keys() -> None:
    shown = clean_url("https://ada:pass@example.com/a?token=x&page=1&api_key=y#z")
    assert shown == "https://example.com/a?token=***&page=1&api_key=***"
    assert clean_url("https://example.com/a") == "https://example.com/a"


def test_links_of_the_link_header_are_absolute(web: Web) -> None:
    web.replies([Reply([], headers={"Link": '</orders?page=2>; rel="next"'})])
    with client(web) as http:
        assert http.get("/orders").links == {"next": f"{web.url}/orders?page=2"}


def test_a_link_that_leads_nowhere_harms_nobody_who_does_not_follow_it(web: Web) -> None:
    for link in ("garbage", "<<<>>;;; rel", ",,,", '<http://[bad>; rel="next"', "<http://x:99999999/>; rel=next"):
        web.replies([Reply([1], headers={"Link": link})])
        with client(web) as http:
            assert http.get("/orders").data == [1]


def test_a_key_in_the_query_goes_to_its_own_origin_only_and_does_not_show(web: Web) -> None:
    other = Web()
    try:
        web.replies([Reply(status=302, headers={"Location": f"{other.url}/elsewhere?appid=k3y"}), Reply(status=404)])
        with client(web, credential=Credential("appid", "k3y", in_query=True)) as http:
            shown = http.get("/", params={"page": 1}).url
            with pytest.raises(IntegrationError) as caught:
                http.get("/", params={"page": 2})
        assert [request.params for request in web.asked] == [{"page": str(n), "appid": "k3y"} for n in (1, 2)]
        assert other.asked[0].params == {}
        assert "k3y" not in shown + str(caught.value) + repr(caught.value)
    finally:
        other.stop()


def test_a_post_that_a_redirect_turns_into_a_get_is_not_taken_for_done(web: Web) -> None:
    web.answer = lambda asked: Reply({}) if asked.path == "/new" else Reply(status=302, headers={"Location": "/new"})
    with client(web) as http, pytest.raises(IntegrationError, match=r"redirected to .*/new") as caught:
        http.post("/old", json={}, repeatable=True)
    assert "nothing was done there" in str(caught.value)
    web.answer = lambda asked: Reply({}) if asked.path == "/new" else Reply(status=308, headers={"Location": "/new"})
    with client(web) as http:
        http.post("/old", json={"id": 7})
    assert (web.asked[-1].method, web.asked[-1].body) == ("POST", b'{"id":7}')


def test_a_refusal_that_is_accepted_is_an_answer(web: Web) -> None:
    web.replies([Reply({"error": "no"}, status=422)])
    with client(web) as http:
        assert http.post("/orders", accept={422}).data == {"error": "no"}


def test_the_next_call_waits_until_a_used_up_rate_limit_is_renewed(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("integrations.http.time.sleep", pauses.append)
    web.replies(
        [Reply({}, headers={"RateLimit": '"minute";r=0;t=2'}), Reply({}, headers={"RateLimit": '"hour";r=0;t=9'})]
    )
    with client(web) as http:
        for _ in range(3):
            http.get("/")
    # The first call has nothing to wait for; the third would wait longer than the budget allows.
    assert [round(pause) for pause in pauses] == [0, 2, 2]


@pytest.mark.parametrize("url", ["ftp://example.com/", "/orders"])
def test_a_mistake_in_the_call_itself_says_nothing_about_the_service(url: str) -> None:
    with HttpClient(service="shop", budget=QUICK, breaker=BreakerPolicy(failures=1)) as http:
        with pytest.raises(IntegrationError, match="unsupported protocol") as caught:
            http.get(url)
        assert (caught.value.code, caught.value.retryable, http.circuit) == ("not_sent", False, "closed")


# --- downloads --------------------------------------------------------------------------------------------------


def test_a_download_is_streamed_into_a_file_which_is_there_once_it_is_whole(web: Web, tmp_path: Path) -> None:
    to = tmp_path / "report.csv"
    to.write_text("yesterday's")
    web.replies([Reply(b"half", promised=9), Reply(status=500), Reply(b"today's")])
    with client(web, limits=Limits(size=3)) as http:
        answer = http.download("/report.csv", to)
    assert (answer.status, answer.body, to.read_text()) == (200, b"", "today's")
    assert [file.name for file in tmp_path.iterdir()] == ["report.csv"]


def test_a_download_that_fails_leaves_the_file_as_it_was(web: Web, tmp_path: Path) -> None:
    to = tmp_path / "report.csv"
    to.write_text("yesterday's")
    web.replies([Reply(b"half", promised=9)])
    with client(web) as http:
        with pytest.raises(IntegrationError, match="remote protocol error"):
            http.download("/report.csv", to)
        web.replies([Reply(b"not found", status=404)])
        with pytest.raises(IntegrationError, match="answered 404"):
            http.download("/report.csv", to)
    assert (to.read_text(), len(list(tmp_path.iterdir()))) == ("yesterday's", 1)
    assert len(web.asked) == QUICK.attempts + 1


def test_a_download_takes_no_more_memory_than_a_piece_of_it(web: Web, tmp_path: Path) -> None:
    size = 32 << 20
    web.replies([Reply(b"x" * size)])
    with client(web) as http:
        tracemalloc.start()
        try:
            http.download("/big", tmp_path / "big")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (tmp_path / "big").stat().st_size == size
    assert peak < size // 4


# --- for asyncio ------------------------------------------------------------------------------------------------


def test_tasks_share_a_client_for_asyncio_and_its_token(web: Web, tmp_path: Path) -> None:
    service = Tokens(web, expires_in=3600)

    async def work() -> list[Any]:
        async with AsyncHttpClient(web.url, service="shop", budget=QUICK, credential=tokens_of(web)) as http:
            await http.download("/report", tmp_path / "report")
            return [one.data["token"] for one in await asyncio.gather(*(http.get("/orders") for _ in range(5)))]

    assert asyncio.run(work()) == ["t0ken1"] * 5
    assert service.given == 1
    assert (tmp_path / "report").read_text() == '{"token": "t0ken1"}'


def test_a_client_for_asyncio_keeps_its_loop_free_while_it_waits(web: Web) -> None:
    web.replies([Reply(status=503), Reply(status=503), Reply({"ok": True})])

    async def work() -> tuple[Any, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        async with AsyncHttpClient(web.url, service="shop", budget=RetryBudget(first_wait=0.2)) as http:
            ticking = asyncio.create_task(tick())
            answer = await http.get("/")
            ticking.cancel()
        return answer.data, ticks

    data, ticks = asyncio.run(work())
    assert data == {"ok": True}
    assert ticks > 0


def test_a_call_that_is_canceled_does_not_count_against_the_service(trickle: str) -> None:
    async def work() -> str:
        options: dict[str, Any] = {"budget": QUICK, "breaker": BreakerPolicy(failures=1)}
        async with AsyncHttpClient(trickle, service="shop", **options) as http:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(http.get("/"), 0.1)
            return http.circuit

    assert asyncio.run(work()) == "closed"


# --- tokens -----------------------------------------------------------------------------------------------------


class Tokens:
    """A service with tokens of its own: `refused` ones are answered with 401."""

    def __init__(self, web: Web, **told: Any) -> None:
        self.given = 0
        self.refused: set[str] = set()
        self._told = told
        self._lock = threading.Lock()
        web.answer = self._answer

    def _answer(self, asked: Asked) -> Reply:
        if asked.path == "/token":
            with self._lock:
                self.given += 1
                return Reply({"access_token": f"t0ken{self.given}", "token_type": "bearer", **self._told})
        token = asked.headers["authorization"].removeprefix("Bearer ")
        return Reply({"token": token}, status=401 if token in self.refused else 200)


def tokens_of(web: Web, **options: Any) -> ClientCredentials:
    return ClientCredentials(f"{web.url}/token", "ada", "s3cret", **options)


def test_a_token_is_asked_for_once_and_sent_with_every_call(web: Web) -> None:
    service = Tokens(web, expires_in=3600)
    with client(web, credential=tokens_of(web, params={"scope": "read write"})) as http:
        threads = [threading.Thread(target=http.get, args=("/orders",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert service.given == 1
    asked = web.asked[0]
    assert (asked.method, asked.body) == ("POST", b"grant_type=client_credentials&scope=read+write")
    assert asked.headers["authorization"] == Credential.basic("ada", "s3cret").value
    assert {request.headers["authorization"] for request in web.asked[1:]} == {"Bearer t0ken1"}


def test_a_token_that_expires_is_renewed_before_it_is_refused(web: Web) -> None:
    service = Tokens(web, expires_in=0)
    with client(web, credential=tokens_of(web)) as http:
        assert [http.get("/orders").data["token"] for _ in range(2)] == ["t0ken1", "t0ken2"]
    assert service.given == 2


def test_a_token_that_is_refused_is_renewed_once(web: Web) -> None:
    service = Tokens(web)
    with client(web, credential=tokens_of(web)) as http:
        http.get("/orders")
        service.refused.add("t0ken1")
        assert http.get("/orders").data == {"token": "t0ken2"}
        service.refused |= {"t0ken2", "t0ken3"}
        with pytest.raises(IntegrationError, match="answered 401"):
            http.get("/orders")
    assert service.given == 3


def test_asking_for_a_token_is_part_of_the_calls_own_budget(web: Web) -> None:
    web.replies([Reply(status=503)])
    with client(web, credential=tokens_of(web)) as http, pytest.raises(IntegrationError, match="/token: answered 503"):
        http.get("/orders")
    assert len(web.asked) == QUICK.attempts


def test_a_token_may_take_as_long_as_any_other_call(web: Web) -> None:
    free = threading.Event()
    web.answer = lambda _: Reply({}, status=200 if free.wait(30) else 500)
    once = RetryBudget(attempts=1)
    with (
        client(web, credential=tokens_of(web), limits=Limits(timeout=0.2), budget=once) as http,
        pytest.raises(IntegrationError, match="/token: read timeout"),
    ):
        http.get("/orders")
    free.set()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply({"error": "invalid_client"}, status=401), "/token: invalid_client"),
        (Reply({"error": "invalid_scope"}, status=400), "/token: invalid_scope"),
        (Reply(b"<html>"), "/token: answered 200 OK, without a token"),
        (Reply([]), "/token: answered 200 OK, without a token"),
    ],
)
def test_a_service_that_gives_no_token_says_why_and_shows_no_secret(web: Web, reply: Reply, message: str) -> None:
    web.replies([reply])
    with client(web, credential=tokens_of(web)) as http, pytest.raises(IntegrationError, match=message) as caught:
        http.get("/orders")
    assert "check the client's id" in str(caught.value)
    assert len(web.asked) == 1
    assert "s3cret" not in str(caught.value)

"""The S3 client, and a server or a way to it that is in trouble: what is tried again, what is left, what is told."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from integrations.calls import NO_ANSWER, RetryBudget
from integrations.s3 import S3, Refused, S3Config, S3IntegrationError, copying
from sandbox.s3 import BUCKET
from sandbox.serve import Running
from tests.integrations.web import Asked, Reply, Web

PART = 64 << 10
TRIES = 3
AT, LARGE, COPY = "s3://bucket/key", "s3://bucket/large/key", "s3://bucket/z"
TWO = b"x" * (2 * PART)
"""What goes in two parts."""
SLOW = Reply(b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>", 503)


@pytest.fixture
def s3(s3_endpoint: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A client whose requests pass through `web`, which can do with them what it likes."""
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART)
    budget = RetryBudget(attempts=TRIES, first_wait=0.001)
    client = S3(S3Config(endpoint_url=web.url, retry=budget, read_timeout=5.0, part_size=PART, at_once=2))
    with httpx.Client(base_url=s3_endpoint, verify=False) as server:
        web.answer = lambda asked: passed_on(server, asked)
        client.sdk.create_bucket(Bucket="bucket")
        web.asked.clear()
        yield client


def passed_on(server: httpx.Client, asked: Asked) -> Reply:
    dropped = {"host", "expect", "accept-encoding", "content-length", "connection"}
    headers = {name: value for name, value in asked.headers.items() if name not in dropped}
    answer = server.request(asked.method, asked.target, headers=headers, content=asked.body)
    dropped = {"connection"} if asked.method == "HEAD" else {"content-length", "connection"}
    kept = {name: value for name, value in answer.headers.items() if name not in dropped}
    return Reply(answer.content, answer.status_code, kept)


def meddle(web: Web, what: Callable[[Asked], bool], how: Callable[[Reply], Reply], times: int = 10**9) -> None:
    """Answers some requests, after they are done, in another way."""
    whole, left = web.answer, iter(range(times))

    def answer(asked: Asked) -> Reply:
        reply = whole(asked)
        return how(reply) if what(asked) and next(left, None) is not None else reply

    web.answer = answer


def half(reply: Reply) -> Reply:
    content = reply.content[: len(reply.content) // 2]
    return replace(reply, body=content, promised=len(reply.content) - len(content))


def damaged(reply: Reply) -> Reply:
    return replace(reply, body=reply.content[:-1] + bytes([reply.content[-1] ^ 1]))


def lost(_: Reply) -> Reply:
    return Reply(status=None)


def is_get(asked: Asked) -> bool:
    return asked.method == "GET"


def is_part(asked: Asked) -> bool:
    return "partNumber" in asked.params


def is_copy(asked: Asked) -> bool:
    return "x-amz-copy-source" in asked.headers


def is_end(asked: Asked) -> bool:
    return asked.method == "POST" and "uploadId" in asked.params


def uploads(s3: S3) -> list[Any]:
    found: list[Any] = s3.sdk.list_multipart_uploads(Bucket="bucket").get("Uploads", [])
    return found


def keys(s3: S3) -> list[str]:
    return [each.url for each in s3.objects.list("s3://bucket")]


@pytest.mark.parametrize("how", [half, lost, damaged, lambda _: SLOW], ids=["half", "reset", "damaged", "503"])
def test_what_comes_damaged_or_not_at_all_is_read_again_piece_by_piece(
    s3: S3, web: Web, tmp_path: Path, how: Callable[[Reply], Reply]
) -> None:
    content = os.urandom(2 * PART + 9)
    s3.objects.upload(AT, content)
    if how is not damaged:  # of a range, S3 tells no checksum
        web.asked.clear()
        meddle(web, is_get, how, times=2)
        s3.objects.download(AT, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == content
        assert len([asked for asked in web.asked if is_get(asked)]) == 3 + 2
    meddle(web, is_get, how, times=2)
    assert s3.objects.read(AT) == content


@pytest.mark.parametrize(("how", "code"), [(half, NO_ANSWER), (lost, NO_ANSWER), (lambda _: SLOW, "SlowDown")])
def test_a_download_that_fails_leaves_the_file_that_was_there_and_no_other(
    s3: S3, web: Web, tmp_path: Path, how: Callable[[Reply], Reply], code: str
) -> None:
    s3.objects.upload(AT, os.urandom(3 * PART))
    (tmp_path / "copy").write_bytes(b"before")
    meddle(web, lambda asked: asked.headers.get("range", "").startswith(f"bytes={PART}-"), how)
    with pytest.raises(S3IntegrationError, match="after 3 attempts") as caught:
        s3.objects.download(AT, tmp_path / "copy")
    assert (caught.value.code, caught.value.retryable) == (code, True)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert (tmp_path / "copy").read_bytes() == b"before"


@pytest.mark.parametrize("others", [False, True], ids=["by its CRC-32", "by its ETag"])
@pytest.mark.parametrize("size", [9, 2 * PART])
def test_a_damaged_download_is_found_and_leaves_no_file(
    s3: S3, web: Web, tmp_path: Path, size: int, others: bool
) -> None:
    if others:  # stored without a checksum, in one request
        s3.sdk.put_object(Bucket="bucket", Key="key", Body=b"x" * size)
        meddle(web, lambda _: True, without_checksums)
    else:
        s3.objects.upload(AT, b"x" * size)
    meddle(web, is_get, damaged)
    with pytest.raises(S3IntegrationError, match="checksum") as caught:
        s3.objects.download(AT, tmp_path / "copy")
    assert (caught.value.code, caught.value.retryable) == ("ChecksumMismatch", True)
    assert list(tmp_path.iterdir()) == []


def without_checksums(reply: Reply) -> Reply:
    return replace(reply, headers={name: value for name, value in reply.headers.items() if "checksum" not in name})


def test_damaged_bytes_that_are_read_into_memory_are_found(s3: S3, web: Web) -> None:
    s3.objects.upload(AT, b"abc")
    meddle(web, is_get, damaged)
    with pytest.raises(S3IntegrationError, match="after 3 attempts") as caught:
        s3.objects.read(AT)
    assert (caught.value.code, caught.value.retryable) == ("ChecksumMismatch", True)


def test_a_store_that_does_not_keep_to_ranges_is_found_out(s3: S3, web: Web) -> None:
    s3.objects.upload(AT, b"abc")
    meddle(web, is_get, lambda reply: replace(without_checksums(reply), body=b"abcdef"))
    with pytest.raises(S3IntegrationError, match="6 bytes instead of 3"):
        list(s3.objects.stream(AT))


def test_an_object_that_is_replaced_while_it_is_read_is_not_read_on(s3: S3) -> None:
    s3.objects.upload(AT, os.urandom(3 * PART))
    stream = s3.objects.stream(AT)
    next(stream)
    s3.objects.upload(AT, b"another one")
    with pytest.raises(S3IntegrationError, match="PreconditionFailed"):
        list(stream)


def refusal(code: str, status: int, **headers: str) -> Reply:
    return Reply(f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode(), status, headers)


# what is asked of S3, by which operation; what tests/integrations/test_contract.py asks is not repeated
CALLS: dict[str, tuple[Callable[[Asked], bool], Callable[[S3], object]]] = {
    "head_object": (
        lambda asked: asked.method == "HEAD" and asked.path.endswith("/key"),
        lambda s3: s3.objects.info(AT),
    ),
    "copy_object": (lambda asked: is_copy(asked) and not is_part(asked), lambda s3: s3.objects.copy(AT, COPY)),
    "create_multipart_upload": (lambda asked: asked.target.endswith("?uploads"), lambda s3: s3.objects.upload(AT, TWO)),
    "upload_part": (lambda asked: is_part(asked) and not is_copy(asked), lambda s3: s3.objects.upload(AT, TWO)),
    "complete_multipart_upload": (is_end, lambda s3: s3.objects.upload(AT, TWO)),
    "get_object_tagging": (lambda asked: asked.target.endswith("?tagging"), lambda s3: s3.objects.copy(LARGE, COPY)),
    "upload_part_copy": (lambda asked: is_part(asked) and is_copy(asked), lambda s3: s3.objects.copy(LARGE, COPY)),
}
FAILURES: dict[str, tuple[Reply, int | None, int]] = {
    "400": (refusal("InvalidRequest", 400), 400, 1),
    "401": (refusal("Unauthorized", 401), 401, 1),
    "403": (refusal("AccessDenied", 403), 403, 1),
    "404": (refusal("NoSuchKey", 404), 404, 1),
    "409": (refusal("OperationAborted", 409), 409, TRIES),
    "429": (refusal("TooManyRequests", 429, **{"Retry-After": "0"}), 429, TRIES),
    "500": (refusal("InternalError", 500), 500, TRIES),
    "502 in HTML": (Reply(b"<html>Bad Gateway</html>", 502), 502, TRIES),
    "503": (SLOW, 503, TRIES),
    "reset": (Reply(status=None), None, TRIES),
}


@pytest.mark.parametrize("failure", list(FAILURES))
def test_whatever_call_of_an_operation_fails_it_is_tried_as_often_as_can_help_and_no_part_stays(
    s3: S3, web: Web, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    monkeypatch.setattr(copying, "_IN_ONE_REQUEST", PART)
    monkeypatch.setattr(copying, "_PART", PART)
    s3.objects.upload(AT, b"x")
    s3.objects.upload(LARGE, TWO)
    whole = web.answer
    reply, status, tries = FAILURES[failure]
    for operation, (is_it, call) in CALLS.items():
        web.asked.clear()
        web.answer = partial(instead, reply, is_it, whole)
        with pytest.raises(S3IntegrationError) as caught:
            call(s3)
        error = caught.value
        made = Counter(asked.target for asked in web.asked if is_it(asked))
        # Of a HEAD that is refused, botocore looks up the bucket's region, and asks once more, there.
        there = (operation, failure) == ("head_object", "400")
        assert set(made.values()) == {tries + there}, operation
        assert (error.operation, error.status, error.retryable) == (operation, status, tries > 1)
        assert error.hint
        assert "html" not in str(error)
        web.answer = whole
        assert (uploads(s3), keys(s3)) == ([], [AT, LARGE])


def instead(reply: Reply, of: Callable[[Asked], bool], whole: Callable[[Asked], Reply], asked: Asked) -> Reply:
    return reply if of(asked) else whole(asked)


def test_a_server_that_stops_in_the_middle_of_a_body_is_not_waited_for(s3_endpoint: str) -> None:
    del s3_endpoint  # its credentials
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def answer() -> None:
            for _ in range(TRIES):
                connection, _ = server.accept()
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                kept.append(connection)

        thread = Thread(target=answer)
        thread.start()
        budget = RetryBudget(attempts=TRIES, first_wait=0.001)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(S3IntegrationError, match="after 3 attempts") as caught:
            S3(S3Config(endpoint_url=url, retry=budget, read_timeout=0.1)).objects.read(AT)
        thread.join()
    for connection in kept:
        connection.close()
    assert (caught.value.code, caught.value.retryable) == (NO_ANSWER, True)


def test_a_stream_that_breaks_off_leaves_no_part_behind(s3: S3) -> None:
    class Broken:
        left = 2

        def read(self, size: int, /) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise ConnectionResetError("the stream broke off")
            return b"x" * size

    with pytest.raises(ConnectionResetError):
        s3.objects.upload(AT, Broken())
    assert (uploads(s3), keys(s3)) == ([], [])


def test_parts_that_cannot_be_deleted_are_told_in_the_log(s3: S3, web: Web, caplog: pytest.LogCaptureFixture) -> None:
    whole = web.answer
    web.answer = lambda asked: SLOW if is_part(asked) or asked.method == "DELETE" else whole(asked)
    with pytest.raises(S3IntegrationError, match="reduce your request rate"):
        s3.objects.upload(AT, TWO)
    assert "parts of an upload are still there: s3://bucket/key" in caplog.text


@pytest.mark.parametrize("content", [b"abc", TWO])
def test_bytes_that_are_damaged_on_the_way_are_refused_by_the_store_and_sent_again(
    served: Running, web: Web, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART)
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    key, budget, faults = SecretStr("sandbox"), RetryBudget(attempts=TRIES, first_wait=0.001), iter(range(TRIES - 1))
    with httpx.Client(base_url=served.s3_base, verify=False) as server:

        def answer(asked: Asked) -> Reply:
            fault = asked.method == "PUT" and next(faults, None) is not None
            return passed_on(server, replace(asked, body=b"?" + asked.body[1:]) if fault else asked)

        web.answer = answer
        config = S3Config(
            endpoint_url=web.url, access_key_id=key, secret_access_key=key, retry=budget, part_size=PART, at_once=1
        )
        url = f"s3://{BUCKET}/key"
        S3(config).objects.upload(url, content)
        assert S3(config).objects.read(url) == content
    assert next(faults, None) is None
    assert "aws-chunked" not in {asked.headers.get("content-encoding") for asked in web.asked}


@pytest.mark.parametrize("size", [9, 2 * PART])
def test_a_conditional_upload_whose_answer_is_lost_meets_its_own_object(s3: S3, web: Web, size: int) -> None:
    meddle(web, lambda asked: is_end(asked) or (asked.method == "PUT" and not is_part(asked)), lost, times=1)
    stored = s3.objects.upload(AT, b"x" * size, if_none_match=True)
    assert s3.objects.info(AT).etag == stored.etag


def test_an_upload_that_is_over_when_its_end_is_asked_for_again_is_done(s3: S3, web: Web) -> None:
    ended: list[Asked] = []
    whole = web.answer
    gone = Reply(b"<Error><Code>NoSuchUpload</Code><Message>It does not exist.</Message></Error>", 404)

    def answer(asked: Asked) -> Reply:
        if not is_end(asked):
            return whole(asked)
        ended.append(asked)
        return lost(whole(asked)) if len(ended) == 1 else gone

    web.answer = answer
    stored = s3.objects.upload(AT, TWO, operation_id="export-1")
    assert (len(ended), s3.objects.info(AT).etag) == (2, stored.etag)
    with pytest.raises(S3IntegrationError, match="NoSuchUpload"):
        s3.objects.upload(AT, TWO, operation_id="export-2")


@pytest.mark.parametrize("operation", ["copy_object", "complete_multipart_upload"])
def test_a_200_with_an_error_in_it_is_an_error(s3: S3, web: Web, operation: str) -> None:
    s3.objects.upload(AT, b"x")
    late = Reply(b"<Error><Code>InternalError</Code><Message>Oops.</Message></Error>", 200)
    meddle(web, lambda asked: is_copy(asked) or is_end(asked), lambda _: late, times=TRIES - 1)
    if operation == "copy_object":
        s3.objects.copy(AT, "s3://bucket/copy")
        assert s3.objects.read("s3://bucket/copy") == b"x"
    else:
        s3.objects.upload(AT, TWO)
        assert s3.objects.info(AT).size == 2 * PART
    assert not uploads(s3)


def test_what_cannot_be_deleted_is_told_key_by_key_and_the_rest_is_gone(s3: S3, web: Web) -> None:
    for key in ("f/a", "f/b", "f/c"):
        s3.objects.upload(f"s3://bucket/{key}", b"x")
    told = b"<Error><Key>f/b</Key><Code>AccessDenied</Code><Message>No.</Message></Error>"
    refused = Reply(b"<DeleteResult>%s</DeleteResult>" % told)
    meddle(web, lambda asked: asked.target.endswith("?delete"), lambda _: refused)
    ended = s3.objects.delete_many([f"s3://bucket/f/{name}" for name in "abc"])
    assert ended.deleted == ("s3://bucket/f/a", "s3://bucket/f/c")
    assert ended.refused == (Refused("s3://bucket/f/b", "AccessDenied", "No."),)
    s3.folders.create("s3://bucket/f")
    with pytest.raises(S3IntegrationError) as caught:
        s3.folders.delete("s3://bucket/f/")
    assert caught.value.message == "s3://bucket/f/: s3://bucket/f/b is not deleted: No. (AccessDenied)"
    assert caught.value.code == "AccessDenied"


def test_of_a_stream_no_more_parts_are_read_than_are_on_their_way(s3: S3, web: Web) -> None:
    class Counted:
        read_so_far = 0

        def read(self, size: int, /) -> bytes:
            size = min(size, 20 * PART - self.read_so_far)
            self.read_so_far += size
            return b"x" * size

    stream, whole, ahead = Counted(), web.answer, list[int]()

    def answer(asked: Asked) -> Reply:
        if is_part(asked):
            ahead.append(stream.read_so_far // PART - len(ahead))
        return whole(asked)

    web.answer = answer
    assert s3.objects.upload(AT, stream).size == 20 * PART
    assert len(ahead) == 20
    assert max(ahead) <= s3.config.at_once + 1


def test_a_stream_that_is_left_asks_for_no_more(s3: S3, web: Web) -> None:
    s3.objects.upload(AT, b"x" * (20 * PART))
    stream: Any = s3.objects.stream(AT)
    next(stream)
    stream.close()
    asked = len([asked for asked in web.asked if is_get(asked)])
    assert asked <= s3.config.at_once + 1

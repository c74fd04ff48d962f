"""The S3 client, and a server or a way to it that is in trouble: what is tried again, what is left, what is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from integrations.calls import NO_ANSWER, RetryBudget
from integrations.s3 import S3, Refused, S3Config, S3IntegrationError
from tests.integrations.web import Asked, Reply, Web

PART = 64 << 10
TRIES = 3
AT = "s3://bucket/key"
SLOW = Reply(b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>", 503)


@pytest.fixture
def s3(s3_endpoint: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A client whose requests pass through `web`, which can do with them what it likes."""
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART)
    budget = RetryBudget(attempts=TRIES, first_wait=0.001)
    client = S3(S3Config(endpoint_url=web.url, retry=budget, read_timeout=5.0, part_size=PART, at_once=2))
    with httpx.Client(base_url=s3_endpoint) as server:
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


@pytest.mark.parametrize("failing", [is_part, is_end], ids=["a part", "the end"])
@pytest.mark.parametrize(
    ("reply", "code", "tries"),
    [
        (SLOW, "SlowDown", TRIES),
        (Reply(b"<Error><Code>InternalError</Code><Message>Oops.</Message></Error>", 500), "InternalError", TRIES),
        (Reply(b"<html>Bad Gateway</html>", 502), "502", TRIES),
        (Reply(status=None), NO_ANSWER, TRIES),
        (Reply(b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", 403), "AccessDenied", 1),
    ],
    ids=["503", "500", "502 in HTML", "reset", "403"],
)
def test_an_upload_that_fails_leaves_no_part_behind(
    s3: S3, web: Web, failing: Callable[[Asked], bool], reply: Reply, code: str, tries: int
) -> None:
    whole = web.answer
    web.answer = lambda asked: reply if failing(asked) else whole(asked)
    with pytest.raises(S3IntegrationError) as caught:
        s3.objects.upload(AT, b"x" * (2 * PART))
    assert (caught.value.code, caught.value.retryable) == (code, tries > 1)
    assert len([asked for asked in web.asked if failing(asked)]) in {tries, 2 * tries}  # of one part, or of both
    web.answer = whole
    assert (uploads(s3), keys(s3)) == ([], [])


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
        s3.objects.upload(AT, b"x" * (2 * PART))
    assert "parts of an upload are still there: s3://bucket/key" in caplog.text


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
    stored = s3.objects.upload(AT, b"x" * (2 * PART), operation_id="export-1")
    assert (len(ended), s3.objects.info(AT).etag) == (2, stored.etag)
    with pytest.raises(S3IntegrationError, match="NoSuchUpload"):
        s3.objects.upload(AT, b"x" * (2 * PART), operation_id="export-2")


@pytest.mark.parametrize("operation", ["copy_object", "complete_multipart_upload"])
def test_a_200_with_an_error_in_it_is_an_error(s3: S3, web: Web, operation: str) -> None:
    s3.objects.upload(AT, b"x")
    late = Reply(b"<Error><Code>InternalError</Code><Message>Oops.</Message></Error>", 200)
    meddle(web, lambda asked: "x-amz-copy-source" in asked.headers or is_end(asked), lambda _: late, times=TRIES - 1)
    if operation == "copy_object":
        s3.objects.copy(AT, "s3://bucket/copy")
        assert s3.objects.read("s3://bucket/copy") == b"x"
    else:
        s3.objects.upload(AT, b"x" * (2 * PART))
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
    with pytest.raises(S3IntegrationError, match="s3://bucket/f/: 1 of 2 objects are not deleted") as caught:
        s3.folders.delete("s3://bucket/f/")
    assert caught.value.code == "AccessDenied"

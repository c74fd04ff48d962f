"""Files in S3: as on disk, from a store that may be in trouble."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from errors import SourceError
from etl.sources import disk
from integrations.s3 import open_s3
from settings import get_settings
from tests.etl.sources.reading import read, source_of
from tests.integrations.web import Asked, Reply, Web

_ASKED = ("range", "if-match", "authorization")
_KEPT = ("ETag", "Content-Range", "Last-Modified", "Content-Type")


def file(path: str, **options: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, **options}


@pytest.fixture
def bucket(s3_endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What puts objects into a bucket: put(key, bytes)."""
    del folder
    monkeypatch.setenv("PIVOTAL_S3_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between retries
    get_settings.cache_clear()
    client = open_s3().sdk
    client.create_bucket(Bucket="inbox")
    return lambda key, content: client.put_object(Bucket="inbox", Key=key, Body=content)


@pytest.fixture
def trouble(bucket: Any, s3_endpoint: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """Stands before the store; its `answer` passes requests on."""
    del bucket
    monkeypatch.setenv("PIVOTAL_S3_ENDPOINT_URL", web.url)
    get_settings.cache_clear()

    def passed_on(asked: Asked) -> Reply:
        answer = httpx.get(
            f"{s3_endpoint}{asked.path}",
            params=dict(asked.params),
            headers={name: asked.headers[name] for name in _ASKED if name in asked.headers},
        )
        headers = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
        return Reply(answer.content, answer.status_code, headers)

    web.answer = passed_on
    return web


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=1000)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", b"id,text\n7,x\n8,y\n", {}),
        ("a.csv.gz", gzip.compress(b"id,text\n7,x\n8,y\n", mtime=0), {}),
        ("a.csv", "id,text\n7,x\n8,y\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("a.ndjson", b'{"id":"7","text":"x"}\n{"id":"8","text":"y"}\n', {}),
        ("a.json", b'{"data":[{"id":"7","text":"x"},{"id":"8","text":"y"}]}', {"records": "data"}),
        ("a.parquet", _parquet(pa.table({"id": ["7", "8"], "text": ["x", "y"]})), {}),
    ],
)
def test_every_format_is_read_from_s3(bucket: Any, name: str, content: bytes, options: dict[str, str]) -> None:
    bucket(f"in/{name}", content)
    result = read(file(f"s3://inbox/in/{name}", **options))
    assert result.rows == [{"id": "7", "text": "x"}, {"id": "8", "text": "y"}]
    assert result.origins == [{"file": f"s3://inbox/in/{name}", "record": record} for record in (1, 2)]
    assert result.bytes_read == len(content)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("in/*.csv", ["in/a.csv", "in/b.csv"]),
        ("in/**/*.csv", ["in/2024/01/d.csv", "in/2024/c.csv", "in/a.csv", "in/b.csv"]),
        ("in/2024/**", ["in/2024/01/d.csv", "in/2024/c.csv"]),
        ("*/[ab].csv", ["in/a.csv", "in/b.csv"]),
        ("in/?.csv", ["in/a.csv", "in/b.csv"]),
        ("in/a.csv", ["in/a.csv"]),
    ],
)
def test_a_glob_goes_by_the_parts_of_the_key(bucket: Any, pattern: str, found: list[str]) -> None:
    for key in ("in/b.csv", "in/a.csv", "in/a.csv2", "in/2024/c.csv", "in/2024/01/d.csv", "out/a.txt"):
        bucket(key, f"id\n{key}\n".encode())
    bucket("in/", b"")
    assert read(file(f"s3://inbox/{pattern}")).column("id") == found


def test_each_object_is_loaded_once_by_size_and_etag(bucket: Any) -> None:
    source = file("s3://inbox/*.csv", incremental=True)
    bucket("a.csv", b"id\n1\n")
    first = read(source)
    bucket("a.csv", b"id\n1\n")  # written again, the same
    bucket("b.csv", b"id\n2\n")
    second = read(source, json.loads(json.dumps(first.state)))
    bucket("b.csv", b"id\n3\n")
    third = read(source, second.state)
    assert [first.column("id"), second.column("id"), third.column("id")] == [["1"], ["2"], ["3"]]


def test_a_large_object_is_read_in_pieces(bucket: Any, trouble: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_BUFFER", 1 << 10)
    bucket("a.csv.gz", gzip.compress(b"id\n" + b"".join(b"%d\n" % (number * 7919) for number in range(20_000))))
    assert len(read(file("s3://inbox/a.csv.gz")).rows) == 20_000
    sizes = [_asked_for(asked) for asked in trouble.asked if "range" in asked.headers]
    assert max(sizes) <= 1 << 16


def _asked_for(asked: Asked) -> int:
    first, last = asked.headers["range"].removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


def test_a_store_that_answers_503_and_500_and_breaks_off_is_asked_again(bucket: Any, trouble: Web) -> None:
    bucket("a.csv", b"id\n" + b"1\n" * 1000)
    whole = trouble.answer
    faults = iter([Reply(status=503), Reply(status=500), None, None, "half", None, Reply(status=None)])

    def answer(asked: Asked) -> Reply:
        fault = next(faults, None)
        if fault == "half":
            reply = whole(asked)
            return Reply(reply.content[:100], reply.status, reply.headers, promised=len(reply.content) - 100)
        return fault if isinstance(fault, Reply) else whole(asked)

    trouble.answer = answer
    assert read(file("s3://inbox/a.csv")).column("id") == ["1"] * 1000


def test_a_store_that_stays_in_trouble_fails_the_run_with_one_message(bucket: Any, trouble: Web) -> None:
    bucket("a.csv", b"id\n1\n")
    trouble.replies([Reply(b"<Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>", 503)])
    with pytest.raises(SourceError, match=r"a\.csv: Please reduce your rate \(503 SlowDown, after 5") as caught:
        read(file("s3://inbox/a.csv"))
    assert caught.value.retryable


def test_an_object_that_changes_while_it_is_read_fails_the_run(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.sources.lines._CHUNK", 1 << 10)
    monkeypatch.setattr(disk, "_BUFFER", 1 << 10)
    bucket("a.ndjson", b'{"id":1}\n' * 10_000)
    batches = iter(source_of(file("s3://inbox/a.ndjson")).open(None))
    next(batches)
    bucket("a.ndjson", b'{"id":2}\n' * 10_000)
    with pytest.raises(SourceError, match=r"s3://inbox/a\.ndjson: has changed while it was read") as caught:
        list(batches)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://other/a.csv", "s3://other/a.csv: The specified bucket does not exist (404 NoSuchBucket)"),
        ("s3://inbox/no.csv", "s3://inbox/no.csv: there is no such object"),
        ("s3://inbox/in", "s3://inbox/in: is a folder\n  hint: name the objects in it: s3://inbox/in/*.csv"),
        ("s3://inbox", "s3://inbox: is a bucket\n  hint: name the objects in it"),
        ("s3://inbox/*.tsv", "s3://inbox/*.tsv: no file has such a name"),
        ("s3://inbox/in/broken.csv.gz", "s3://inbox/in/broken.csv.gz: is cut off: its compressed data has no end"),
        ("s3://inbox/in/broken.parquet", "s3://inbox/in/broken.parquet: Parquet magic bytes not found"),
    ],
)
def test_what_cannot_be_read_from_s3_gives_one_clear_message(bucket: Any, path: str, message: str) -> None:
    bucket("in/a.csv", b"id\n1\n")
    bucket("in/broken.csv.gz", gzip.compress(b"id\n" + b"1\n" * 1000)[:-20])
    bucket("in/broken.parquet", b"no Parquet")
    with pytest.raises(SourceError) as caught:
        read(file(path))
    assert str(caught.value).startswith(message)


def test_a_key_that_may_not_be_read_is_told(bucket: Any, trouble: Web) -> None:
    bucket("a.csv", b"id\n1\n")
    whole = trouble.answer
    denied = Reply(b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", 403)
    trouble.answer = lambda asked: denied if "range" in asked.headers else whole(asked)
    with pytest.raises(SourceError, match=r"s3://inbox/a\.csv: Access Denied \(403 AccessDenied\)") as caught:
        read(file("s3://inbox/a.csv"))
    assert "s3:GetObject" in str(caught.value.hint)

"""The S3 client against moto's server: boto3, over a real socket."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from errors import IntegrationError
from events.cause import Cause, caused_by
from events.log import EventLog, open_log
from integrations.calls import NOT_SENT, RetryBudget
from integrations.s3 import S3, S3Config, S3IntegrationError, configured, copying, open_s3, split_url
from settings import Settings, get_settings

PART = 64 << 10
AT = "s3://bucket/in/orders.csv"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(open_log(f"sqlite:///{tmp_path / 'events.db'}")) as opened:
        yield opened


@pytest.fixture
def s3(s3_endpoint: str, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A client of a server that has one bucket, `bucket`, and takes small parts."""
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART)
    budget = RetryBudget(attempts=3, first_wait=0.001)
    client = S3(S3Config(endpoint_url=s3_endpoint, retry=budget, part_size=PART), log)
    client.sdk = sdk_at(s3_endpoint)
    client.sdk.create_bucket(Bucket="bucket")
    return client


@cache
def sdk_at(endpoint: str) -> Any:
    """boto3's client; to make one takes a while."""
    return S3(S3Config(endpoint_url=endpoint)).sdk


def told(log: EventLog) -> list[tuple[str, str]]:
    return [(each.event.type, each.event.aggregate_id) for each in log.read(0, 5000)]


def content_of(s3: S3, url: str) -> bytes:
    bucket, key = split_url(url)
    content: bytes = s3.sdk.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4)).decode()


class Drip(io.RawIOBase):
    """A stream that ends nobody knows when, cannot go back, and gives a little at a time."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def read(self, size: int = -1, /) -> bytes:
        return self._rest.read(min(size, 7001))


def file_with(content: bytes, folder: Path) -> Path:
    path = folder / "content"
    path.write_bytes(content)
    return path


FORMS: dict[str, Callable[[bytes, Path], Any]] = {
    "bytes": lambda content, _: content,
    "a file": file_with,
    "a stream": lambda content, _: Drip(content),
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize(("size", "parts"), [(0, ""), (7, ""), (PART, ""), (PART + 1, "2"), (2 * PART + 9, "3")])
def test_bytes_files_and_streams_are_stored_in_parts_where_they_are_large(
    s3: S3, tmp_path: Path, form: str, size: int, parts: str
) -> None:
    content = os.urandom(size)
    stored = s3.objects.upload(AT, FORMS[form](content, tmp_path))
    head = s3.sdk.head_object(Bucket="bucket", Key="in/orders.csv")
    assert (stored.url, stored.size, stored.etag) == (AT, size, head["ETag"])
    assert head["ETag"].strip('"').partition("-")[2] == parts
    assert content_of(s3, AT) == content
    assert s3.sdk.list_multipart_uploads(Bucket="bucket").get("Uploads", []) == []


def test_what_an_object_is_stored_with_comes_back(s3: S3) -> None:
    s3.objects.upload(
        AT, b"id\n1\n", content_type="text/tab-separated-values", metadata={"Owner": "sales"}, tags={"a b": "c=d"}
    )
    info = s3.objects.info(AT)
    assert (info.url, info.size, info.content_type) == (AT, 5, "text/tab-separated-values")
    assert info.metadata == {"owner": "sales"}
    assert info.checksums == {"CRC32": crc32(b"id\n1\n")}
    assert info.modified.tzinfo is not None
    assert s3.sdk.get_object_tagging(Bucket="bucket", Key="in/orders.csv")["TagSet"] == [{"Key": "a b", "Value": "c=d"}]


@pytest.mark.parametrize("size", [9, PART + 1])
def test_the_type_is_guessed_and_metadata_tags_and_keys_hold_for_parts_too(s3: S3, size: int) -> None:
    s3.objects.upload(
        AT, b"x" * size, metadata={"owner": "sales"}, tags={"a": "b"}, encryption="aws:kms", kms_key_id="alias/lake"
    )
    info = s3.objects.info(AT)
    assert (info.content_type, info.metadata) == ("text/csv", {"owner": "sales"})
    assert (info.encryption, info.kms_key_id) == ("aws:kms", "alias/lake")
    assert s3.sdk.get_object_tagging(Bucket="bucket", Key="in/orders.csv")["TagSet"] == [{"Key": "a", "Value": "b"}]


def test_a_type_is_not_guessed_of_what_is_packed_or_unknown(s3: S3) -> None:
    for name in ("a.csv.gz", "a", "a.unheard-of"):
        s3.objects.upload(f"s3://bucket/{name}", b"x")
        assert s3.objects.info(f"s3://bucket/{name}").content_type == "application/octet-stream"


def test_an_object_may_be_encrypted_with_the_stores_own_key(s3: S3) -> None:
    s3.objects.upload(AT, b"x", encryption="AES256")
    assert (s3.objects.info(AT).encryption, s3.objects.info(AT).kms_key_id) == ("AES256", None)


@pytest.mark.parametrize("size", [9, PART + 1])
def test_an_object_that_is_there_can_be_left_alone(s3: S3, size: int) -> None:
    s3.objects.upload(AT, b"first", if_none_match=True)
    with pytest.raises(S3IntegrationError, match="PreconditionFailed") as caught:
        s3.objects.upload(AT, b"x" * size, if_none_match=True)
    assert (caught.value.status, caught.value.retryable) == (412, False)
    assert content_of(s3, AT) == b"first"
    assert s3.sdk.list_multipart_uploads(Bucket="bucket").get("Uploads", []) == []


def test_an_object_is_replaced_only_if_it_is_the_one_that_was_seen(s3: S3) -> None:
    first = s3.objects.upload(AT, b"first")
    second = s3.objects.upload(AT, b"second", if_match=first.etag)
    with pytest.raises(S3IntegrationError, match="PreconditionFailed"):
        s3.objects.upload(AT, b"third", if_match=first.etag)
    assert s3.objects.info(AT).etag == second.etag


def test_the_same_operation_run_again_meets_its_own_object_and_is_told_once(s3: S3, log: EventLog) -> None:
    first = s3.objects.upload(AT, b"first", if_none_match=True, operation_id="export-1")
    again = s3.objects.upload(AT, b"first", if_none_match=True, operation_id="export-1")
    with pytest.raises(S3IntegrationError, match="PreconditionFailed"):
        s3.objects.upload(AT, b"first", if_none_match=True, operation_id="export-2")
    assert again == first
    assert told(log) == [("pivotal.s3.file.uploaded", AT)]


def test_many_files_are_stored_and_each_one_is_told_how_it_ended(s3: S3, tmp_path: Path, log: EventLog) -> None:
    items = [(f"s3://bucket/many/{number}.txt", b"%d" % number) for number in range(9)]
    wrong: list[tuple[str, Any]] = [("s3://bucket/missing", tmp_path / "missing"), ("s3://nowhere/a", b"")]
    with caused_by(Cause("order-7")):
        ended = s3.objects.upload_many([*items, *wrong], metadata={"a": "b"}, operation_id="export-1")
    assert [each.url for each in ended] == [url for url, _ in [*items, *wrong]]
    assert [each.stored.size if each.stored else None for each in ended] == [1] * 9 + [None, None]
    missing, nowhere = (each.error for each in ended[-2:])
    assert isinstance(missing, FileNotFoundError)
    assert isinstance(nowhere, S3IntegrationError)
    assert nowhere.code == "NoSuchBucket"
    assert s3.objects.read("s3://bucket/many/7.txt") == b"7"
    assert {each.event.metadata.correlation_id for each in log.read(0, 9)} == {"order-7"}
    assert [each.stored for each in s3.objects.upload_many(items, operation_id="export-1")] == [
        each.stored for each in ended[:-2]
    ]
    assert told(log).count(("pivotal.s3.file.uploaded", "s3://bucket/many/7.txt")) == 1


@pytest.mark.parametrize("size", [0, 9, 2 * PART + 9])
def test_what_was_stored_is_read_back_into_memory_a_stream_and_a_file(
    s3: S3, tmp_path: Path, log: EventLog, size: int
) -> None:
    content = os.urandom(size)
    s3.objects.upload(AT, content)
    pieces = list(s3.objects.stream(AT))
    info = s3.objects.download(AT, tmp_path / "copy.csv")
    assert s3.objects.read(AT) == content
    assert b"".join(pieces) == content
    assert max([0, *map(len, pieces)]) <= PART
    assert (info.size, (tmp_path / "copy.csv").read_bytes()) == (size, content)
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == ["copy.csv"]
    assert told(log)[1:] == [("pivotal.s3.file.downloaded", AT)] * 3


@pytest.mark.parametrize(("start", "size"), [(0, 3), (4, None), (4, 3), (7, 100), (PART - 1, PART + 3)])
def test_a_range_of_an_object(s3: S3, start: int, size: int | None) -> None:
    content = os.urandom(2 * PART + 9)
    s3.objects.upload(AT, content)
    expected = content[start : None if size is None else start + size]
    assert s3.objects.read(AT, start, size) == expected
    assert b"".join(s3.objects.stream(AT, start, size)) == expected


def test_an_object_that_others_stored_is_checked_by_its_etag(s3: S3, tmp_path: Path) -> None:
    s3.sdk.put_object(Bucket="bucket", Key="in/orders.csv", Body=b"abc", ContentMD5=_md5(b"abc"))
    assert s3.objects.download(AT, tmp_path / "copy").size == 3


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def test_a_copy_has_the_content_the_type_the_metadata_and_the_tags(s3: S3, log: EventLog) -> None:
    s3.objects.upload(AT, b"abc", metadata={"owner": "sales"}, tags={"a": "b"}, content_type="text/x")
    target = "s3://other/ü & ü/copy.csv"
    s3.sdk.create_bucket(Bucket="other")
    copied = s3.objects.copy(AT, target, encryption="AES256", operation_id="copy-1")
    s3.objects.copy(AT, target, encryption="AES256", operation_id="copy-1")
    info = s3.objects.info(target)
    assert (copied.url, copied.etag, copied.size) == (target, info.etag, 3)
    assert (info.content_type, info.metadata, info.encryption) == ("text/x", {"owner": "sales"}, "AES256")
    assert s3.sdk.get_object_tagging(Bucket="other", Key="ü & ü/copy.csv")["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert told(log)[1:] == [("pivotal.s3.file.copied", target)]


def test_a_large_object_is_copied_in_parts_with_all_that_is_beside_its_bytes(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_IN_ONE_REQUEST", PART)
    monkeypatch.setattr(copying, "_PART", PART)
    content = os.urandom(2 * PART + 9)
    s3.objects.upload(AT, content, metadata={"owner": "sales"}, tags={"a": "b = c"}, content_type="text/x")
    copied = s3.objects.copy(AT, "s3://bucket/copy", encryption="aws:kms", kms_key_id="alias/lake")
    info = s3.objects.info("s3://bucket/copy")
    assert (copied.size, copied.etag) == (len(content), info.etag)
    assert info.etag.endswith('-3"')
    assert (info.content_type, info.metadata, info.kms_key_id) == ("text/x", {"owner": "sales"}, "alias/lake")
    assert content_of(s3, "s3://bucket/copy") == content
    tags = s3.sdk.get_object_tagging(Bucket="bucket", Key="copy")["TagSet"]
    assert tags == [{"Key": "a", "Value": "b = c"}]


def test_what_is_deleted_is_gone_and_deleting_it_again_is_no_mistake(s3: S3, log: EventLog) -> None:
    s3.objects.upload(AT, b"abc")
    s3.objects.delete(AT)
    s3.objects.delete(AT)
    with pytest.raises(S3IntegrationError) as caught:
        s3.objects.info(AT)
    assert (caught.value.status, caught.value.message) == (404, f"{AT}: Not Found (404)")
    assert told(log)[1:] == [("pivotal.s3.file.deleted", AT)] * 2


def test_thousands_are_listed_page_by_page_and_deleted_a_thousand_at_a_time(s3: S3, log: EventLog) -> None:
    from moto.s3.models import s3_backends

    backend = s3_backends["123456789012"]["aws"]
    keys = [f"many/{number:04} ü" for number in range(1005)]
    for key in keys:
        backend.put_object("bucket", key, b"x")
    listed = list(s3.objects.list("s3://bucket/many/"))
    assert [each.url for each in listed] == [f"s3://bucket/{key}" for key in keys]
    assert {each.size for each in listed} == {1}
    assert list(s3.objects.list("s3://bucket/many/", most=7)) == listed[:7]
    ended = s3.objects.delete_many(each.url for each in listed)
    assert (len(ended.deleted), ended.refused) == (1005, ())
    assert list(s3.objects.list("s3://bucket")) == []
    assert {kind for kind, _ in told(log)} == {"pivotal.s3.file.deleted"}
    assert len(told(log)) == 1005


def test_a_page_of_a_listing_leads_to_the_next_one(s3: S3) -> None:
    for key in ("a/1", "a/2", "b", "c/3"):
        s3.sdk.put_object(Bucket="bucket", Key=key, Body=b"x")
    first = s3.objects.page("s3://bucket", most=2, delimiter="/")
    assert (first.folders, [each.url for each in first.objects]) == (("s3://bucket/a/",), ["s3://bucket/b"])
    assert first.cursor is not None
    second = s3.objects.page("s3://bucket", most=2, delimiter="/", cursor=first.cursor)
    assert (second.folders, second.objects, second.cursor) == (("s3://bucket/c/",), (), None)


def test_folders_are_made_listed_and_deleted_with_all_that_is_in_them(s3: S3, log: EventLog) -> None:
    assert s3.folders.create("s3://bucket/orders/2024") == "s3://bucket/orders/2024/"
    s3.folders.create("s3://bucket/orders/2025/")
    for key in ("orders/2024/01/a.csv", "orders/2024.csv", "orders/2024-old/b.csv"):
        s3.sdk.put_object(Bucket="bucket", Key=key, Body=b"x")
    in_orders = [f"s3://bucket/orders/{name}/" for name in ("2024-old", "2024", "2025")]
    assert list(s3.folders.list("s3://bucket")) == ["s3://bucket/orders/"]
    assert list(s3.folders.list("s3://bucket/orders")) == in_orders
    assert s3.folders.delete("s3://bucket/orders/2024") == 2
    assert s3.folders.delete("s3://bucket/orders/2024") == 0
    assert [each.url for each in s3.objects.list("s3://bucket/orders/2024")] == [
        "s3://bucket/orders/2024-old/b.csv",
        "s3://bucket/orders/2024.csv",
    ]
    assert ("pivotal.s3.folder.created", "s3://bucket/orders/2024/") in told(log)
    assert ("pivotal.s3.folder.deleted", "s3://bucket/orders/2024/") in told(log)
    assert ("pivotal.s3.file.deleted", "s3://bucket/orders/2024/01/a.csv") in told(log)


def test_folders_are_listed_over_many_pages(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrations.s3.folders._PAGE", 2)
    for number in range(5):
        s3.folders.create(f"s3://bucket/{number}")
    assert list(s3.folders.list("s3://bucket")) == [f"s3://bucket/{number}/" for number in range(5)]


def test_others_read_and_write_an_object_by_a_presigned_address(s3: S3) -> None:
    put = httpx.put(s3.presigned.put(AT, content_type="text/x"), content=b"abc", headers={"Content-Type": "text/x"})
    got = httpx.get(s3.presigned.get(AT, save_as="orders.csv"))
    assert (put.status_code, got.status_code, got.content) == (200, 200, b"abc")
    assert got.headers["Content-Disposition"] == 'attachment; filename="orders.csv"'
    assert s3.objects.info(AT).content_type == "text/x"


def test_a_presigned_address_says_who_signed_it_for_how_long_and_holds_no_checksum(s3: S3) -> None:
    params = httpx.URL(s3.presigned.put(AT, expires=60)).params
    assert (params["X-Amz-Expires"], params["X-Amz-Algorithm"]) == ("60", "AWS4-HMAC-SHA256")
    assert [name for name in params if "checksum" in name.lower()] == []


def test_others_post_an_object_by_a_presigned_form(s3: S3) -> None:
    form = s3.presigned.post("s3://bucket/in/${filename}", largest=10, content_type="text/csv")
    answer = httpx.post(form.url, data=dict(form.fields), files={"file": ("orders.csv", b"abc")})
    assert answer.status_code == 204
    assert (s3.objects.read(AT), s3.objects.info(AT).content_type) == (b"abc", "text/csv")
    assert form.fields["x-amz-signature"] not in repr(form)
    policy = base64.b64decode(form.fields["policy"]).decode()
    assert '["content-length-range", 0, 10]' in policy


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        (lambda s3: s3.objects.upload("bucket/key", b""), "bucket/key: not an S3 address", "write s3://bucket/key"),
        (lambda s3: s3.objects.upload("s3://bucket", b""), "s3://bucket: is a bucket", "name an object in it"),
        (lambda s3: s3.objects.delete("s3://bucket/"), "s3://bucket/: is a bucket", "name an object in it"),
        (lambda s3: s3.objects.delete_many(["s3://bucket"]), "s3://bucket: is a bucket", "name the objects in it"),
        (lambda s3: s3.folders.delete("s3://bucket//"), "s3://bucket//: is a bucket", "name a folder in it"),
        (lambda s3: s3.objects.upload(AT, b"", kms_key_id="k"), "a KMS key without KMS", "encryption='aws:kms'"),
        (lambda s3: s3.objects.upload(AT, b"", if_match="e", if_none_match=True), "exclude each other", "one of them"),
        (lambda s3: s3.objects.upload(AT, b"", metadata={"a": "ü"}), "Non ascii characters", ""),
        (lambda s3: s3.objects.read(AT, -1), "no range: start -1", "start from 0"),
        (lambda s3: list(s3.objects.stream(AT, 0, 0)), "size 0", "1 byte or more"),
        (lambda s3: s3.presigned.get(AT, expires=604_801), "an address for 604801 s", "a week"),
        (lambda s3: s3.presigned.post(AT, largest=1, expires=0), "an address for 0 s", "a week"),
        (lambda s3: s3.objects.info("s3://BAD NAME/k"), 'Invalid bucket name "BAD NAME": Bucket name must match', ""),
    ],
)
def test_what_cannot_be_meant_is_told_before_anything_is_sent(
    s3: S3, call: Callable[[S3], object], message: str, hint: str
) -> None:
    with pytest.raises(S3IntegrationError) as caught:
        call(s3)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert (caught.value.code, caught.value.status, caught.value.retryable) == (NOT_SENT, None, False)


def test_an_address_has_a_bucket_and_a_key() -> None:
    assert split_url("s3://bucket/a//b?.csv") == ("bucket", "a//b?.csv")
    assert split_url("s3://bucket") == ("bucket", "")
    for wrong in ("s3:///key", "file.csv", "http://bucket/key"):
        with pytest.raises(ValueError, match="not an S3 address; write s3://bucket/key"):
            split_url(wrong)


def test_the_settings_say_where_s3_is_who_asks_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    settings = Settings(
        s3_endpoint_url="https://minio.example.com",
        s3_access_key_id=SecretStr("AKIA1"),
        s3_secret_access_key=SecretStr("this_is_never_logged"),
        s3_addressing="virtual",
    )
    s3 = S3(configured(settings))
    address = httpx.URL(s3.presigned.get(AT))
    assert (address.host, address.path) == ("bucket.minio.example.com", "/in/orders.csv")
    assert "/eu-west-3/s3/" in address.params["X-Amz-Credential"]
    assert address.params["X-Amz-Credential"].startswith("AKIA1/")
    assert "never_logged" not in repr(s3.config) + str(address)


def test_without_settings_it_is_amazons_own_with_the_credentials_that_aws_tools_find(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    get_settings.cache_clear()
    address = httpx.URL(open_s3().presigned.get(AT))
    assert address.host == "bucket.s3.amazonaws.com" or "eu-north-1" in address.host
    assert address.params["X-Amz-Credential"].startswith("AKIA2/")


def test_without_credentials_it_says_where_to_put_them(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    s3 = S3(S3Config(endpoint_url=s3_endpoint))
    for call in (lambda: s3.objects.read(AT), lambda: s3.presigned.get(AT)):
        with pytest.raises(S3IntegrationError, match="Unable to locate credentials") as caught:
            call()
        assert "AWS_ACCESS_KEY_ID" in str(caught.value.hint)
        assert (caught.value.code, caught.value.retryable) == (NOT_SENT, False)


def test_half_of_the_credentials_or_an_endpoint_that_is_none_is_told(s3_endpoint: str) -> None:
    for config in (
        S3Config(endpoint_url=s3_endpoint, access_key_id=SecretStr("AKIA1")),
        S3Config(endpoint_url="minio"),
    ):
        with pytest.raises(IntegrationError) as caught:
            S3(config).objects.info(AT)
        assert caught.value.code == NOT_SENT
        assert caught.value.hint
        assert not caught.value.retryable


def test_to_import_it_costs_no_sdk() -> None:
    program = "import integrations.s3, sys; print([name for name in ('boto3', 'botocore') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_no_credential_reaches_a_log(s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    secrets: dict[str, Any] = {"access_key_id": SecretStr("AKIAnever"), "secret_access_key": SecretStr("never_logged")}
    client = S3(S3Config(endpoint_url=s3.config.endpoint_url, session_token=SecretStr("token_never"), **secrets))
    with caplog.at_level(logging.DEBUG):
        client.objects.upload(AT, b"abc")
        client.objects.read(AT)
        form = client.presigned.post(AT, largest=1)
        with pytest.raises(S3IntegrationError):
            client.objects.read("s3://nowhere/key")
    assert "file.uploaded" in caplog.text
    assert "never" not in caplog.text + repr(client.config) + repr(form)

"""The sandbox's S3: what it refuses, as S3 does, over a real socket with the real SDK."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from cli.serve import store_environment
from integrations.calls import RetryBudget
from integrations.s3 import S3, S3Config, S3IntegrationError, open_s3
from sandbox.s3 import BUCKET
from sandbox.serve import Running
from sandbox.wire import Misbehaviour
from settings import get_settings


@pytest.fixture
def s3(served: Running) -> Any:
    """boto3's own client."""
    client = sdk(served.s3_base)
    client.put_object(Bucket=BUCKET, Key="key", Body=b"abc")
    served.sandbox.wire.calls.clear()
    return client


@cache
def sdk(base: str) -> Any:
    return client_of(base).sdk


def client_of(base: str) -> S3:
    key = SecretStr("sandbox")
    budget = RetryBudget(attempts=3, first_wait=0.001)
    return S3(S3Config(endpoint_url=base, access_key_id=key, secret_access_key=key, retry=budget))


IN: dict[str, Any] = {"Bucket": BUCKET, "Key": "key"}
NO_UPLOAD: dict[str, Any] = {**IN, "UploadId": "no-such-upload"}

# what is asked -> how it is refused
REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("get_object", {**IN, "Bucket": "nowhere"}, 404, "NoSuchBucket"),
    ("get_object", {**IN, "Key": "nothing"}, 404, "NoSuchKey"),
    ("get_object", {**IN, "Range": "bytes=3-"}, 416, "InvalidRange"),
    ("get_object", {**IN, "IfMatch": '"another"'}, 412, "PreconditionFailed"),
    ("head_object", {**IN, "Key": "nothing"}, 404, "404"),
    ("put_object", {**IN, "Bucket": "nowhere", "Body": b""}, 404, "NoSuchBucket"),
    ("put_object", {**IN, "Body": b"", "IfNoneMatch": "*"}, 412, "PreconditionFailed"),
    ("put_object", {**IN, "Body": b"", "IfMatch": '"another"'}, 412, "PreconditionFailed"),
    ("put_object", {**IN, "Body": b"abc", "ChecksumCRC32": "AAAAAA=="}, 400, "BadDigest"),
    ("put_object", {**IN, "Body": b"", "Metadata": {"long": "x" * 3000}}, 400, "MetadataTooLarge"),
    ("put_object", {**IN, "Body": b"", "Tagging": "a=b&a=c"}, 400, "InvalidTag"),
    ("put_object", {**IN, "Body": b"", "StorageClass": "FLOPPY"}, 400, "InvalidStorageClass"),
    ("put_object", {**IN, "Key": "x" * 1025, "Body": b""}, 400, "KeyTooLongError"),
    ("copy_object", {**IN, "CopySource": f"{BUCKET}/nothing"}, 404, "NoSuchKey"),
    ("copy_object", {**IN, "CopySource": f"{BUCKET}/key"}, 400, "InvalidRequest"),
    ("upload_part", {**NO_UPLOAD, "PartNumber": 1, "Body": b""}, 404, "NoSuchUpload"),
    ("abort_multipart_upload", NO_UPLOAD, 404, "NoSuchUpload"),
    ("list_objects_v2", {"Bucket": "nowhere"}, 404, "NoSuchBucket"),
    ("list_objects_v2", {"Bucket": BUCKET, "ContinuationToken": ""}, 400, "InvalidArgument"),
    ("delete_objects", {"Bucket": BUCKET, "Delete": {"Objects": []}}, 400, "MalformedXML"),
    ("create_bucket", {"Bucket": "Capitals"}, 400, "InvalidBucketName"),
    ("delete_bucket", {"Bucket": BUCKET}, 409, "BucketNotEmpty"),
]


@pytest.mark.parametrize(
    ("operation", "arguments", "status", "code"),
    REFUSED,
    ids=[f"{one[0]}-{one[3]}-{at}" for at, one in enumerate(REFUSED)],
)
def test_what_s3_refuses_is_refused_in_its_words(
    s3: Any, operation: str, arguments: dict[str, Any], status: int, code: str
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(s3, operation)(**arguments)
    answer = caught.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (status, code)


def test_parts_that_are_too_small_or_not_there_make_no_object(s3: Any) -> None:
    upload = s3.create_multipart_upload(**IN)["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**IN, UploadId=upload, PartNumber=number, Body=b"x")["ETag"]}
        for number in (1, 2)
    ]
    for wrong, code in ((parts, "EntityTooSmall"), ([{"PartNumber": 7, "ETag": '"x"'}], "InvalidPart")):
        with pytest.raises(ClientError) as caught:
            s3.complete_multipart_upload(**IN, UploadId=upload, MultipartUpload={"Parts": wrong})
        assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize("key", ["a/b c.csv", "ü/ß+%20&=?#.csv", "//a//", "a_b", "x" * 1000])
def test_keys_of_all_kinds_come_back_as_they_are(s3: Any, served: Running, key: str) -> None:
    client = client_of(served.s3_base)
    url = f"s3://{BUCKET}/{key}"
    client.objects.upload(url, b"content", metadata={"a": "b"})
    assert client.objects.read(url) == b"content"
    assert url in {each.url for each in client.objects.list(f"s3://{BUCKET}")}
    assert httpx.get(client.presigned.get(url)).content == b"content"
    assert s3.head_object(Bucket=BUCKET, Key=key)["ContentLength"] == 7


def test_it_is_empty_again_after_a_reset_but_for_its_bucket(s3: Any, served: Running) -> None:
    served.sandbox.s3.create_bucket("another")
    s3.put_object(Bucket="another", Key="key", Body=b"abc")
    httpx.post(f"{served.url}/_sandbox/reset").raise_for_status()
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3.list_objects_v2(Bucket="another")
    assert s3.list_objects_v2(Bucket=BUCKET).get("Contents", []) == []


def test_its_calls_are_seen_and_can_go_wrong(s3: Any, served: Running) -> None:
    del s3
    served.sandbox.wire.misbehave(Misbehaviour(service="s3", kind="error", status=503, calls=2))
    assert client_of(served.s3_base).objects.read(f"s3://{BUCKET}/key") == b"abc"
    assert [(call.service, call.method, call.path) for call in served.sandbox.wire.calls] == [
        ("s3", "GET", f"/{BUCKET}/key")
    ] * 3


def test_the_variables_that_are_shown_lead_to_it(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store_environment(served.url, served.sandbox).items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    s3 = open_s3()
    s3.objects.upload(f"s3://{BUCKET}/key", b"abc")
    assert s3.objects.read(f"s3://{BUCKET}/key") == b"abc"
    assert [call.service for call in served.sandbox.wire.calls] == ["s3", "s3"]


def test_without_moto_every_call_says_what_is_to_be_installed(
    s3: Any, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    del s3
    monkeypatch.setattr(type(served.sandbox.s3), "available", False)
    with pytest.raises(S3IntegrationError, match=r"pip install 'moto\[s3\]' flask flask-cors \(501 NotImplemented"):
        client_of(served.s3_base).objects.read(f"s3://{BUCKET}/key")
    assert store_environment(served.url, served.sandbox) == {}

from __future__ import annotations

import pytest

from errors import IntegrationError
from integrations.s3 import open_client, s3_errors, split_url
from settings import get_settings
from tests.integrations.web import Reply, Web


@pytest.fixture
def store(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _point_to(s3_endpoint, monkeypatch)
    open_client().create_bucket(Bucket="bucket")


def _point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_S3_ENDPOINT_URL", endpoint)
    get_settings.cache_clear()


def _failing(operation: str, **arguments: object) -> IntegrationError:
    client = open_client()
    with pytest.raises(IntegrationError) as caught, s3_errors(operation, "s3://bucket/key"):
        getattr(client, operation)(**arguments)
    return caught.value


def test_an_address_has_a_bucket_and_a_key() -> None:
    assert split_url("s3://bucket/a//b?.csv") == ("bucket", "a//b?.csv")
    assert split_url("s3://bucket") == ("bucket", "")
    for wrong in ("s3:///key", "file.csv", "http://bucket/key"):
        with pytest.raises(ValueError, match="not an S3 address; write s3://bucket/key"):
            split_url(wrong)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("operation", "arguments", "message", "hint"),
    [
        ("get_object", {"Bucket": "other", "Key": "k"}, "does not exist (404 NoSuchBucket)", "check the bucket's name"),
        ("get_object", {"Bucket": "bucket", "Key": "k"}, "does not exist (404 NoSuchKey)", "check the key"),
        ("head_object", {"Bucket": "bucket", "Key": "k"}, "Not Found (404)", "check bucket and key"),
        (
            "get_object",
            {"Bucket": "BAD NAME", "Key": "k"},
            'Invalid bucket name "BAD NAME": Bucket name must match',
            "",
        ),
    ],
)
def test_what_is_refused_is_told_with_a_hint(
    operation: str, arguments: dict[str, str], message: str, hint: str
) -> None:
    error = _failing(operation, **arguments)
    assert error.message.startswith("s3://bucket/key: ")
    assert message in error.message
    assert hint in (error.hint or "")
    assert (error.service, error.operation, error.retryable) == ("s3", operation, False)


def test_a_store_in_trouble_is_asked_again(s3_endpoint: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    del s3_endpoint  # its credentials
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the retries
    _point_to(web.url, monkeypatch)
    web.replies([Reply(status=503), Reply(status=500), Reply(b"the object", headers={"ETag": '"1"'})])
    assert open_client().get_object(Bucket="bucket", Key="key")["Body"].read() == b"the object"
    assert len(web.asked) == 3


def test_a_key_that_may_not_read_is_told(s3_endpoint: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    del s3_endpoint
    _point_to(web.url, monkeypatch)
    web.replies([Reply(b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", status=403)])
    error = _failing("get_object", Bucket="bucket", Key="key")
    assert error.message == "s3://bucket/key: Access Denied (403 AccessDenied)"
    assert "lack a permission" in str(error.hint)


@pytest.mark.usefixtures("s3_endpoint")
def test_an_endpoint_where_nobody_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the retries
    _point_to("http://127.0.0.1:1", monkeypatch)
    error = _failing("get_object", Bucket="bucket", Key="key")
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:1/bucket/key"' in error.message
    assert "PIVOTAL_S3_ENDPOINT_URL" in str(error.hint)
    assert error.retryable


def test_without_credentials_it_says_where_to_put_them(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    _point_to(s3_endpoint, monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    error = _failing("get_object", Bucket="bucket", Key="key")
    assert "Unable to locate credentials" in error.message
    assert "AWS_ACCESS_KEY_ID" in str(error.hint)

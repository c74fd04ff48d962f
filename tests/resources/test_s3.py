"""S3's resource, in a run of Dagster's, against moto's server."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from events.log import open_log
from integrations.s3 import open_s3
from resources import default_resources
from resources.s3 import S3Resource
from settings import get_settings

AT = "s3://bucket/report.csv"


@pytest.fixture
def events_url(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The event log, and a store with one bucket."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    monkeypatch.setenv("PIVOTAL_EVENTS_URL", url)
    monkeypatch.setenv("PIVOTAL_S3_ENDPOINT_URL", s3_endpoint)
    get_settings.cache_clear()
    open_s3().sdk.create_bucket(Bucket="bucket")
    return url


@dg.op
def report(s3: S3Resource) -> str:
    with s3.open() as client:
        return client.objects.upload(AT, b"id\n1\n", operation_id="report-1").etag


@dg.job
def reporting() -> None:
    report()


def test_ops_store_files_which_belongs_to_their_run_and_is_told_once(events_url: str) -> None:
    first, again = (reporting.execute_in_process(resources={"s3": default_resources()["s3"]}) for _ in range(2))
    with closing(open_log(events_url)) as log:
        (event,) = (recorded.event for recorded in log.read(0, 10))
    assert (event.type, event.aggregate_id) == ("pivotal.s3.file.uploaded", AT)
    assert event.metadata.correlation_id == first.run_id
    assert again.output_for_node("report") == first.output_for_node("report")


def test_what_is_given_goes_before_the_settings(events_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del events_url
    monkeypatch.setenv("OTHER_KEY", "AKIA2")
    monkeypatch.setenv("OTHER_SECRET", "of the tests")
    resource = S3Resource(
        endpoint_url="http://127.0.0.1:9",
        region="eu-west-3",
        access_key_id=dg.EnvVar("OTHER_KEY"),
        secret_access_key=dg.EnvVar("OTHER_SECRET"),
        attempts=2,
    )
    seen: list[Any] = []

    @dg.op
    def look(s3: S3Resource) -> None:
        with s3.open() as client:
            seen.append(client.config)

    @dg.job
    def looking() -> None:
        look()

    assert looking.execute_in_process(resources={"s3": resource}).success
    (config,) = seen
    assert (config.endpoint_url, config.region, config.retry.attempts) == ("http://127.0.0.1:9", "eu-west-3", 2)
    assert config.access_key_id.get_secret_value() == "AKIA2"
    assert config.secret_access_key.get_secret_value() == "of the tests"


def test_half_of_the_credentials_is_refused() -> None:
    with pytest.raises(ValidationError, match="give access_key_id and secret_access_key, or neither"):
        S3Resource(access_key_id="AKIA1")

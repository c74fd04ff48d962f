"""What production keeps in S3 of Dagster's own, through dagster-aws, as docs/deployment.md shows it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from integrations.s3 import S3, open_s3
from resources import default_resources
from settings import get_settings

PAGE = Path(__file__).parents[2] / "docs/deployment.md"


@pytest.fixture
def store(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    monkeypatch.setenv("PIVOTAL_S3_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("PIVOTAL_STEP_OUTPUTS", "s3://acme-dagster/steps")
    get_settings.cache_clear()
    store = open_s3()
    store.sdk.create_bucket(Bucket="acme-dagster")
    return store


@dg.op
def numbers() -> list[int]:
    sys.stdout.write("these are the numbers\n")
    return [1, 2, 3]


@dg.op
def total(numbers: list[int]) -> int:
    return sum(numbers)


@dg.job
def adding() -> None:
    total(numbers())


def test_steps_hand_on_their_outputs_through_a_bucket_and_a_runs_output_is_kept_there(
    store: S3, tmp_path: Path
) -> None:
    (shown,) = re.findall(r"```yaml\n(compute_logs:.*?)```", PAGE.read_text(), re.DOTALL)
    overrides = yaml.safe_load(shown)
    overrides["compute_logs"]["config"]["local_dir"] = str(tmp_path / "logs")
    with dg.instance_for_test(overrides, temp_dir=str(tmp_path)) as instance:
        resources = {"io_manager": default_resources()["io_manager"]}
        result = adding.execute_in_process(instance=instance, resources=resources)
    assert result.output_for_node("total") == 6
    kept = [found.url.removeprefix("s3://acme-dagster/") for found in store.objects.list("s3://acme-dagster")]
    assert f"steps/storage/{result.run_id}/numbers/result" in kept
    (out,) = [key for key in kept if key.startswith("logs/") and key.endswith(".out")]
    assert b"these are the numbers" in store.objects.read(f"s3://acme-dagster/{out}")


def test_without_the_setting_outputs_stay_on_the_disk() -> None:
    assert "io_manager" not in default_resources()

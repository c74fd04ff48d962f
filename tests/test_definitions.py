"""What Dagster finds in the project's root, through each of its commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
HEAVY = ("adbc_driver_manager", "boto3", "dagster_aws", "duckdb", "kafka", "pandas", "pandera", "pyarrow", "sendgrid",
         "stripe")  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's root with the demo's sources and nothing else."""
    from sandbox.seed import write_payments, write_shop

    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pipelines", "assets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dagster.yaml", "workspace.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    write_shop(folder / "data/demo/shop.db")
    write_payments(folder / "data/demo/inbox/payments-2026-11.csv.gz")
    return folder


def run(checkout: Path, *command: str) -> str:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    environment.pop("DAGSTER_HOME", None)
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_dg_check_defs(checkout: Path) -> None:
    assert "All definitions loaded successfully" in run(checkout, "dg", "check", "defs")


def test_dg_list_defs_shows_every_pipeline_with_its_schedule_and_the_sensors(checkout: Path) -> None:
    listed = run(checkout, "dg", "list", "defs", "--json")
    names = [path.stem for path in (ROOT / "pipelines").glob("*.yaml")]
    for name in (*names, "subscriptions", "landed_events_sensor", "orders_schedule", "process_landed_events"):
        assert f'"{name}"' in listed


def test_dg_launch_and_dagster_asset_materialize_load_a_pipeline(checkout: Path) -> None:
    assert "RUN_SUCCESS" in run(checkout, "dg", "launch", "--assets", "orders")
    assert "RUN_SUCCESS" in run(
        checkout, "dagster", "asset", "materialize", "-m", "definitions", "--select", "payments"
    )


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    code = f"import definitions, sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

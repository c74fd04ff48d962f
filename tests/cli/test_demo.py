"""The demo and the development servers, as a newcomer starts them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import httpx
import pytest

from cli.processes import free_port
from tests.services.availability import unavailable
from tests.services.process import alive

ROOT = Path(__file__).parents[2]
PIVOTAL = Path(sys.executable).parent / "pivotal"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands look for in the project's root; the demo runs in it first."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "pipelines", folder / "pipelines")
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def demo(checkout: Path) -> str:
    done = subprocess.run(
        [PIVOTAL, "demo"], cwd=checkout, capture_output=True, text=True, timeout=170, check=False, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"} | variables


def counts(output: str) -> dict[str, list[int]]:
    """Pipeline -> extracted, loaded, filtered, quarantined, deduplicated."""
    lines = [line.split() for line in output.splitlines()]
    return {
        words[0]: [int(word.replace(",", "")) for word in words[1:6]]
        for words in lines
        if len(words) > 7 and words[1].replace(",", "").isdigit()
    }


@pytest.mark.timeout(360)
def test_the_demo_accounts_for_every_row_and_a_second_one_loads_nothing_twice(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = counts(demo(checkout))
    assert set(first) == {"orders", "orders_lake", "payments", "stripe_customers", "webhooks"}
    assert first["orders"] == [5002, 4857, 89, 56, 0]
    assert first["payments"] == [2000, 1950, 0, 50, 0]
    assert first["webhooks"][1] == first["webhooks"][0] > 20
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("DAGSTER_HOME", str(checkout))
    with dg.DagsterInstance.get() as instance:  # the sensor's run has told of the table that the webhooks changed
        (record, *_) = instance.fetch_materializations(dg.AssetKey("subscriptions"), limit=1).records
        run = instance.get_run_by_id(record.run_id)
    assert run
    assert run.tags["dagster/sensor_name"] == "landed_events_sensor"
    output = demo(checkout)
    second = counts(output)
    assert {name: parts[1] for name, parts in second.items()} == dict.fromkeys(first, 0)
    assert all(parts[0] == sum(parts[1:]) for parts in second.values())
    assert "Nothing was loaded twice" in output


@pytest.mark.timeout(240)
def test_dev_serves_everything_and_one_ctrl_c_ends_all_of_it(checkout: Path) -> None:
    ui, receiver, sandbox = free_port(), free_port(), free_port()
    ports = environment(PIVOTAL_GATEWAY_PORT=str(receiver), PIVOTAL_SANDBOX_PORT=str(sandbox))
    with (checkout / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [PIVOTAL, "dev", "--port", str(ui)], cwd=checkout, env=ports, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for(f"http://127.0.0.1:{ui}/server_info")
        wait_for(f"http://127.0.0.1:{receiver}/healthz")
        wait_for(f"http://127.0.0.1:{sandbox}/_sandbox/calls")
        family = descendants(process.pid)
        assert len(family) > 3
        shows_the_asset_graph(ui, checkout / "browser")
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, (checkout / "dev.log").read_text()
    deadline = time.monotonic() + 10
    while (left := [pid for pid in family if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def shows_the_asset_graph(ui: int, profile: Path) -> None:
    """A real browser shows the description, the kinds, the group and the row counts of what the demo ran last."""
    chromium = shutil.which("chromium")
    if not chromium:
        unavailable("Chromium", "no `chromium` on PATH", "install Debian's package chromium")
    page = f"http://127.0.0.1:{ui}/asset-groups/orders?expanded=global%40global%3Ashop"
    quiet = ("disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-sync")
    command = [chromium, "--headless", "--no-sandbox", *(f"--{flag}" for flag in quiet), f"--user-data-dir={profile}"]
    expected = {"Shop orders, cleaned", "SQLite", "DuckDB", "shop", "rows_extracted", "rows_deduplicated"}
    for _ in range(4):  # the page fills in as its data arrives
        shown = subprocess.run(
            [*command, "--virtual-time-budget=20000", "--window-size=1800,1000", "--dump-dom", page],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        if not (missing := {text for text in expected if text not in shown}):
            return
    raise AssertionError(f"the page does not show {missing}")


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines())}
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [below for child in found for below in descendants(child)]

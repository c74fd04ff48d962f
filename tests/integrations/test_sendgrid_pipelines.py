"""The pipelines that the page on SendGrid shows, run against the sandbox."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from etl.loader import load_pipelines
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from integrations.sendgrid import SendGrid
from sandbox.serve import Running
from settings import get_settings
from tests.integrations.mailing import KEY, sendgrid

__all__ = ["sendgrid"]

PAGE = Path(__file__).parents[2] / "docs/integrations/sendgrid.md"
BOUNCES, CONTACTS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(autouse=True)
def _account(served: Running, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_SENDGRID_API_BASE", served.sendgrid_base)
    monkeypatch.setenv("PIVOTAL_SENDGRID_API_KEY", KEY)
    monkeypatch.setenv("PIVOTAL_WAREHOUSE_URL", f"duckdb:///{project / 'house.duckdb'}")
    monkeypatch.setenv("SHOP_DATABASE_URL", f"sqlite:///{project / 'shop.db'}")
    get_settings.cache_clear()


def pipeline(project: Path, text: str) -> Pipeline:
    (project / "pipelines").mkdir()
    (project / "pipelines" / "shown.yaml").write_text(text)
    (shown,) = load_pipelines(project / "pipelines")
    return shown


def test_customers_become_contacts_and_whom_sendgrid_refuses_is_quarantined(project: Path, sendgrid: SendGrid) -> None:
    names = ["ada", "bob", "a,b", "eve"]
    with closing(sqlite3.connect(project / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE customers (email TEXT, name TEXT, updated_at TEXT)")
        rows = [(f"{name}@example.com", name.title(), "2026-11-01 00:00:00") for name in names]
        shop.executemany("INSERT INTO customers VALUES (?, ?, ?)", rows)
    report = run_pipeline(pipeline(project, CONTACTS))
    assert (report.extracted, report.loaded, report.quarantined) == (4, 3, 1)
    found = sendgrid.contacts.find([f"{name}@example.com" for name in ("ada", "bob", "eve")])
    assert {contact["first_name"] for contact in found.values()} == {"Ada", "Bob", "Eve"}


def test_bounces_are_read_and_the_next_run_asks_for_what_is_new(project: Path, served: Running) -> None:
    lists = served.sandbox.sendgrid.suppressions
    shown = pipeline(project, BOUNCES)
    for number in range(600):
        with served.sandbox.clock.at(1_750_000_000 + number * 60):
            lists.put("bounces", f"{number}@example.com", reason="550", status="5.1.1")
    assert run_pipeline(shown).inserted == 600
    lists.put("bounces", "late@example.com", reason="550", status="5.1.1")
    again = run_pipeline(shown)
    assert (again.inserted, again.extracted) == (1, 1 + 61)
    with duckdb.connect(str(project / "house.duckdb"), read_only=True) as house:
        assert house.execute("SELECT count(*) FROM sendgrid_bounces").fetchall() == [(601,)]

"""The pipelines that the documentation shows are pipelines, and its Python runs."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from etl.loader import check
from integrations.s3 import open_s3
from sandbox.app import Sandbox
from sandbox.serve import running
from settings import get_settings
from tests.events.working import until, working
from tests.integrations.web import Asked, Reply, Web, web

__all__ = ["web"]

ROOT = Path(__file__).parents[1]
INTEGRATIONS = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs/integrations").glob("*.md"))
SHOWN = [
    (page, number, text)
    for page in ("README.md", "docs/pipelines.md", "docs/streaming.md", *INTEGRATIONS)
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL), 1)
]
(SCHEMA,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/pipelines.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(("page", "number", "text"), SHOWN, ids=[f"{page}-{number}" for page, number, _ in SHOWN])
def test_a_pipeline_in_the_documentation_has_no_mistake(
    page: str, number: int, text: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIVOTAL_STRIPE_API_KEY", "sk_test_of_the_tests")
    monkeypatch.setenv("PIVOTAL_SENDGRID_API_KEY", "SG.of_the_tests")
    for name in ("KAFKA_BROKERS", "KAFKA_USERNAME", "KAFKA_PASSWORD", "REGISTRY_USERNAME", "REGISTRY_PASSWORD"):
        monkeypatch.setenv(name, "of_the_tests")
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "https://registry.example.com")
    for path in re.findall(r"schema: (\S+\.py):", text):
        (project / path).parent.mkdir(parents=True)
        (project / path).write_text(SCHEMA)
    file = project / "shown.yaml"
    file.write_text(text)
    assert check([file]) == [], f"{page}, example {number}"


def test_what_the_page_on_http_shows_runs(web: Web, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(asked: Asked) -> Reply:
        return Reply([{"id": 7}], status=404 if asked.path.endswith("/nothing-here") else 200)

    web.answer = answer
    monkeypatch.setenv("SHOP_TOKEN", "t0ken")
    monkeypatch.chdir(project)
    run("docs/integrations/http.md", {"https://shop.example.com": web.url})
    assert (project / "2026.csv").read_text() == '[{"id": 7}]'
    assert {asked.method for asked in web.asked} == {"GET", "POST", "PUT", "PATCH", "DELETE"}
    assert web.asked[-1].headers["authorization"] == "Bearer t0ken"


def test_what_the_page_on_stripe_shows_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox()
    sandbox.seed(1)
    with running(sandbox) as served:
        monkeypatch.setenv("PIVOTAL_STRIPE_API_BASE", served.stripe_base)
        monkeypatch.setenv("PIVOTAL_STRIPE_API_KEY", "sk_test_of_the_tests")
        monkeypatch.setenv("PIVOTAL_EVENTS_URL", f"sqlite:///{project / 'events.db'}")
        get_settings.cache_clear()
        shown = run("docs/integrations/stripe.md", {})
        assert shown["stripe"].subscriptions.get(shown["subscription"].id).cancel_at_period_end
        assert shown["log"].counts()["pivotal.stripe.customer.created"] == 2
        shown["log"].close()


def test_what_the_page_on_sendgrid_shows_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(Sandbox()) as served:
        monkeypatch.setenv("PIVOTAL_SENDGRID_API_BASE", served.sendgrid_base)
        monkeypatch.setenv("PIVOTAL_SENDGRID_API_KEY", "SG.of_the_tests")
        monkeypatch.setenv("PIVOTAL_EVENTS_URL", f"sqlite:///{project / 'events.db'}")
        get_settings.cache_clear()
        shown = run("docs/integrations/sendgrid.md", {})
        assert shown["log"].counts()["pivotal.sendgrid.email.sent"] == 5
        shown["log"].close()
    assert "3 2 1\n" in capsys.readouterr().out


def test_what_the_page_on_s3_shows_runs(
    s3_endpoint: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIVOTAL_S3_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("PIVOTAL_EVENTS_URL", f"sqlite:///{project / 'events.db'}")
    monkeypatch.chdir(project)
    get_settings.cache_clear()
    open_s3().sdk.create_bucket(Bucket="acme-inbox")
    shown = run("docs/integrations/s3.md", {})
    assert (project / "copy.csv").read_bytes() == shown["content"] == b"id,amount\n1,9.90\n"
    assert shown["header"] == b"id,amount"
    assert (len(shown["ended"].deleted), shown["ended"].refused) == (20, ())
    assert shown["log"].counts()["pivotal.s3.file.uploaded"] == 1 + 1 + 20 + 1
    shown["log"].close()
    assert "404 NoSuchKey False s3://acme-inbox/nothing-here.csv: " in capsys.readouterr().out


def test_what_the_pages_on_calendars_show_runs(web: Web, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(asked: Asked) -> Reply:
        token = asked.params.get("validationToken", "")
        return Reply(token.encode(), headers={"Content-Type": "text/plain"})

    web.answer = answer
    with running(Sandbox()) as served:
        login = served.sandbox.microsoft_login
        for name, value in {
            "GOOGLE_CREDENTIALS": served.google_credentials,
            "GOOGLE_API_BASE": served.google_base,
            "GOOGLE_WATCH_SECRET": "s3cret",
            "OUTLOOK_TENANT_ID": login.tenant_id,
            "OUTLOOK_CLIENT_ID": login.client_id,
            "OUTLOOK_CLIENT_SECRET": login.client_secret,
            "OUTLOOK_USER": "sandbox@example.com",
            "OUTLOOK_WATCH_SECRET": "s3cret",
            "OUTLOOK_API_BASE": served.graph_base,
            "OUTLOOK_LOGIN_BASE": served.microsoft_base,
            "EVENTS_URL": f"sqlite:///{project / 'events.db'}",
        }.items():
            monkeypatch.setenv(f"PIVOTAL_{name}", value)
        get_settings.cache_clear()
        for service in ("google_calendar", "outlook"):
            shown = run(f"docs/integrations/{service}.md", {"https://example.com": web.url})
            assert shown["log"].counts()[f"pivotal.{service}.event.created"] >= 2
            shown["calendar"].close()
            shown["log"].close()
    assert {asked.path for asked in web.asked} == {"/webhooks/google", "/webhooks/outlook"}


def test_what_the_page_on_twilio_shows_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(Sandbox()) as served:
        monkeypatch.setenv("PIVOTAL_TWILIO_API_BASE", served.twilio_base)
        monkeypatch.setenv("PIVOTAL_TWILIO_ACCOUNT_SID", "AC" + "0" * 32)
        monkeypatch.setenv("PIVOTAL_TWILIO_SECRET", "of the tests")
        monkeypatch.setenv("PIVOTAL_EVENTS_URL", f"sqlite:///{project / 'events.db'}")
        get_settings.cache_clear()
        shown = run("docs/integrations/twilio.md", {})
        assert shown["log"].counts() == {
            "pivotal.twilio.sms.begun": 7,
            "pivotal.twilio.sms.canceled": 1,
            "pivotal.twilio.sms.sent": 5,
        }
        shown["log"].close()
    assert "3 2 1\n" in (out := capsys.readouterr().out)
    assert "400 21610 False" in out


def test_what_the_page_on_events_shows_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_EVENTS_URL", f"sqlite:///{project / 'events.db'}")
    monkeypatch.chdir(project)
    get_settings.cache_clear()
    with closing(sqlite3.connect("shop.db")) as shop:
        shop.executescript("CREATE TABLE customers (points INTEGER); INSERT INTO customers VALUES (0)")
        shown = run("docs/events.md", {})
        with working(shown["log"], *shown["subscriptions"]):
            until(lambda: shop.execute("SELECT points FROM customers").fetchone() == (9,))
    shown["shop"].dispose()
    shown["log"].close()


def run(page: str, replaced: dict[str, str]) -> dict[str, Any]:
    """Runs a page's Python from top to bottom, and the jobs that it defines; gives what it has named."""
    text = (ROOT / page).read_text()
    for old, new in replaced.items():
        text = text.replace(old, new)
    names: dict[str, Any] = {"__name__": "shown"}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, page, "exec", dont_inherit=True), names)
    for job in names["defs"].jobs if "defs" in names else ():
        assert job.execute_in_process(resources=names["defs"].resources).success
    return names


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())]
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []

"""The pipelines that the documentation shows are pipelines, and its Python runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from etl.loader import check
from sandbox.app import Sandbox
from sandbox.serve import running
from settings import get_settings
from tests.integrations.web import Asked, Reply, Web, web

__all__ = ["web"]

ROOT = Path(__file__).parents[1]
INTEGRATIONS = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs/integrations").glob("*.md"))
SHOWN = [
    (page, number, text)
    for page in ("README.md", "docs/pipelines.md", *INTEGRATIONS)
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL), 1)
]
(SCHEMA,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/pipelines.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(("page", "number", "text"), SHOWN, ids=[f"{page}-{number}" for page, number, _ in SHOWN])
def test_a_pipeline_in_the_documentation_has_no_mistake(
    page: str, number: int, text: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIVOTAL_STRIPE_API_KEY", "sk_test_of_the_tests")
    monkeypatch.setenv("PIVOTAL_SENDGRID_API_KEY", "SG.of_the_tests")
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
        assert shown["log"].counts()["pivotal.sendgrid.email.sent"] == 4
        shown["log"].close()
    assert "3 2 1\n" in capsys.readouterr().out


def run(page: str, replaced: dict[str, str]) -> dict[str, Any]:
    """Runs a page's Python from top to bottom, and the jobs that it defines; gives what it has named."""
    text = (ROOT / page).read_text()
    for old, new in replaced.items():
        text = text.replace(old, new)
    names: dict[str, Any] = {"__name__": "shown"}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, page, "exec", dont_inherit=True), names)
    for job in names["defs"].jobs:
        assert job.execute_in_process(resources=names["defs"].resources).success
    return names


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())]
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []

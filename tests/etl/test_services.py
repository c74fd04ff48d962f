"""APIs that a pipeline file knows by name: what the name stands for, and the real thing against the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import stripe.params
from prometheus_client import REGISTRY

from etl.loader import read_pipelines
from etl.pipeline import ApiSource, Pipeline
from etl.run import run_pipeline
from etl.services import SERVICES
from integrations.stripe import API_VERSION
from sandbox.serve import Running, running
from settings import get_settings

STRIPE = {"type": "api", "service": "stripe", "resource": "invoices"}


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running() as sandbox:
        yield sandbox


@pytest.fixture
def account(served: Running, project: Path, monkeypatch: pytest.MonkeyPatch) -> Running:  # noqa: ARG001  (where it runs)
    served.sandbox.reset()
    monkeypatch.setenv("PIVOTAL_STRIPE_API_BASE", served.stripe_base)
    monkeypatch.setenv("PIVOTAL_STRIPE_API_KEY", "sk_test_of_the_tests")
    get_settings.cache_clear()
    return served


def pipeline(resource: str, **source: Any) -> Pipeline:
    destination = {"type": "database", "connection": "duckdb:///house.duckdb", "table": resource, "write": "merge"}
    declared = {"source": {**STRIPE, "resource": resource, **source}, "destination": {**destination, "key": ["id"]}}
    return Pipeline.model_validate({"name": resource, "description": "d", **declared})


def count(project: Path, table: str) -> int:
    with duckdb.connect(str(project / "house.duckdb"), read_only=True) as connection:
        (found,) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
        return int(found[0])


@pytest.mark.parametrize("resource", ["customers", "invoices", "subscriptions", "prices", "products", "events"])
def test_a_resource_of_stripes_is_read_to_its_end(account: Running, project: Path, resource: str) -> None:
    account.sandbox.seed(30)
    for number in range(120):
        account.sandbox.stripe.account.create_customer({"name": f"customer {number}"})
    report = run_pipeline(pipeline(resource))
    kind = resource.removesuffix("s")
    assert report.extracted == len(account.sandbox.stripe.account._objects[kind]) == count(project, resource) > 0
    assert {call.api_version for call in account.sandbox.wire.calls} == {API_VERSION}
    assert REGISTRY.get_sample_value("pivotal_call_seconds_count", {"service": "stripe", "operation": "page"})


def test_the_next_run_asks_for_what_is_new(account: Running, project: Path) -> None:
    account.sandbox.seed(40)
    invoices = pipeline("invoices", incremental={"lag": "1d"})
    everything = run_pipeline(invoices).extracted
    payer = account.sandbox.stripe.account.create_customer({})["id"]
    account.sandbox.stripe.account.create_invoice({"customer": payer})
    again = run_pipeline(invoices)
    assert again.inserted == 1
    assert again.extracted < everything
    assert count(project, "invoices") == everything + 1


def test_what_the_file_says_counts() -> None:
    source = ApiSource.model_validate(
        {
            **STRIPE,
            "auth": {"type": "bearer", "token": "${OTHER_KEY}"},
            "params": {"status": "open"},
            "headers": {"Stripe-Account": "acct_1"},
            "incremental": {"cursor": "created", "start": 1767225600},
        }
    )
    assert source.auth is not None
    assert source.model_dump(include={"auth", "params", "headers"}) == {
        "auth": {"type": "bearer", "token": "${OTHER_KEY}"},
        "params": {"limit": 100, "status": "open"},
        "headers": {"Stripe-Version": API_VERSION, "Stripe-Account": "acct_1"},
    }
    assert source.incremental is not None
    assert (source.incremental.param, source.incremental.start) == ("created[gte]", 1767225600)
    assert source.url == "${PIVOTAL_STRIPE_API_BASE}/v1/invoices"


@pytest.mark.parametrize("resource", list(SERVICES["stripe"].resources))
def test_stripe_lists_every_resource_in_the_way_that_the_name_stands_for(resource: str) -> None:
    kind = "".join(word.title() for word in resource.removesuffix("s").split("_"))
    asked = {"limit", "starting_after", "created", *SERVICES["stripe"].resources[resource]}
    assert asked <= getattr(stripe.params, f"{kind}ListParams").__annotations__.keys()


def test_the_version_is_the_one_whose_shapes_the_project_reads() -> None:
    assert SERVICES["stripe"].keys["headers"] == {"Stripe-Version": API_VERSION}


@pytest.mark.parametrize(
    ("source", "line", "told"),
    [
        (["service: strype", "resource: invoices"], 4, "`service` is not a service that is known by name"),
        (["service: stripe"], 4, "`service` is without `resource`"),
        (["service: stripe", "resource: invoice"], 5, "`resource` is not a resource of stripe"),
        (["service: stripe", "resource: invoices", "url: https://x"], 6, "`url` is beside `service`"),
        (
            ["service: stripe", "resource: invoices", "incremental: {cursor: paid}"],
            6,
            "a cursor that stripe cannot be asked by",
        ),
        (["resource: invoices"], 4, "`resource` is without `service`"),
        ([], 3, "`url` is missing in `source`"),
    ],
    ids=["service", "no resource", "resource", "url", "cursor", "no service", "neither"],
)
def test_a_source_that_is_not_known_like_this_is_refused_at_its_place(
    tmp_path: Path, source: list[str], line: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIVOTAL_STRIPE_API_KEY", "sk_test_of_the_tests")
    text = "\n  ".join(["description: d\nsource:", "type: api", *source])
    (tmp_path / "shown.yaml").write_text(
        f"{text}\ndestination: {{type: database, connection: 'sqlite:///x', table: t, write: merge, key: [id]}}\n"
    )
    _, problems = read_pipelines([tmp_path / "shown.yaml"])
    assert [(problem.line, told in problem.message) for problem in problems] == [(line, True)], problems
    assert all(problem.hint for problem in problems)


@pytest.mark.parametrize("auth", ["", "  auth: {type: bearer, token: '${OTHER_KEY:-sk_test_2}'}\n"], ids=["", "own"])
def test_a_key_that_is_not_set_is_told_before_anything_runs(tmp_path: Path, auth: str) -> None:
    (tmp_path / "shown.yaml").write_text(
        f"description: d\nsource:\n  type: api\n  service: stripe\n  resource: invoices\n{auth}"
        "destination: {type: database, connection: 'sqlite:///x', table: t, write: merge, key: [id]}\n"
    )
    _, problems = read_pipelines([tmp_path / "shown.yaml"])
    message = "the environment variable PIVOTAL_STRIPE_API_KEY is not set"
    assert [(problem.line, problem.message) for problem in problems] == ([] if auth else [(4, message)])

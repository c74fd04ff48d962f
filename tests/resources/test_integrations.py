"""Resources that hand out integrations, in a run of Dagster's, against the sandbox."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from errors import PivotalError
from events.cause import Cause, caused_by
from events.envelope import Event
from events.log import open_log
from resources import default_resources
from resources.http import HttpResource
from resources.stripe import StripeResource
from sandbox.serve import Running
from settings import get_settings
from tests.integrations.web import Web, web

__all__ = ["web"]


@dg.op
def sign_up(stripe: StripeResource) -> str:
    with stripe.open() as client:
        return str(client.customers.create({"name": "Ada"}, operation_id="signup-1").id)


@dg.op
def look(stripe: StripeResource, customer: str) -> str | None:
    with stripe.open() as client:
        return client.customers.get(customer).name


@dg.job
def onboarding() -> None:
    look(sign_up())


def test_ops_use_stripe_and_what_they_change_belongs_to_their_run(
    served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    monkeypatch.setenv("PIVOTAL_EVENTS_URL", url)
    monkeypatch.setenv("PIVOTAL_STRIPE_API_KEY", "sk_test_of_the_tests")
    monkeypatch.setenv("PIVOTAL_STRIPE_API_BASE", served.stripe_base)
    get_settings.cache_clear()
    result = onboarding.execute_in_process(resources={"stripe": default_resources()["stripe"]})
    assert result.output_for_node("look") == "Ada"
    (event,) = told(url)
    assert (event.type, event.aggregate_id) == ("pivotal.stripe.customer.created", result.output_for_node("sign_up"))
    assert event.metadata.correlation_id == result.run_id


def test_a_cause_that_is_there_already_stays(served: Running, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    stripe = StripeResource(events_url=url, api_key="sk_test_of_the_tests", api_base=served.stripe_base)
    with caused_by(Cause("order-7")), stripe.open() as client:
        client.customers.create(operation_id="signup-2")
    with stripe.open() as client:
        client.customers.create(operation_id="signup-3")
    first, second = told(url)
    assert first.metadata.correlation_id == "order-7"
    assert second.metadata.correlation_id == second.id


def test_without_a_key_the_variable_is_named() -> None:
    with pytest.raises(PivotalError, match="PIVOTAL_STRIPE_API_KEY"), StripeResource().open():
        pass


@pytest.mark.parametrize(
    ("given", "header", "value"),
    [
        ({"bearer": "t0ken"}, "authorization", "Bearer t0ken"),
        ({"api_key": "k3y", "api_key_header": "X-Key"}, "x-key", "k3y"),
        ({"username": "ada", "password": "pass"}, "authorization", "Basic YWRhOnBhc3M="),
        ({"headers": {"X-Tenant": "7"}}, "x-tenant", "7"),
    ],
)
def test_an_http_api_is_called_with_the_credential_of_its_resource(
    web: Web, given: dict[str, Any], header: str, value: str
) -> None:
    @dg.op
    def call(shop: HttpResource) -> None:
        with shop.open() as client:
            client.get("/orders")

    @dg.job(resource_defs={"shop": HttpResource(base_url=web.url, service="shop", **given)})
    def calling() -> None:
        call()

    calling.execute_in_process()
    assert (web.asked[0].path, web.asked[0].headers[header]) == ("/orders", value)


def test_an_http_api_with_tokens_is_asked_for_one(web: Web) -> None:
    token = {"token_url": f"{web.url}/token", "client_id": "ada", "client_secret": "s3cret", "scope": "read"}
    resource = HttpResource(base_url=web.url, service="shop", attempts=1, **token)  # type: ignore[arg-type]
    with resource.open() as client, pytest.raises(PivotalError, match="without a token"):
        client.get("/orders")
    assert web.asked[0].body == b"grant_type=client_credentials&scope=read"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bearer": "a", "api_key": "b"}, "give one of bearer, api_key"),
        ({"username": "ada"}, "username needs password"),
        ({"token_url": "http://x", "client_id": "ada"}, "token_url needs client_secret"),
    ],
)
def test_credentials_that_cannot_work_are_refused_at_once(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HttpResource(base_url="http://x", service="shop", **given)  # type: ignore[arg-type]


def told(url: str) -> list[Event]:
    with closing(open_log(url)) as log:
        return [recorded.event for recorded in log.read(0, 100)]

"""SendGrid's resource, in a run of Dagster's, against the sandbox."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from errors import PivotalError
from events.log import open_log
from integrations.sendgrid import Message
from resources import default_resources
from resources.sendgrid import SendGridResource
from sandbox.serve import Running
from settings import get_settings


@dg.op
def greet(sendgrid: SendGridResource) -> str:
    with sendgrid.open() as client:
        return client.mail.send(
            Message("shop@example.com", ("ada@example.com",), "Welcome", "Hello"), operation_id="welcome-1"
        )


@dg.job
def onboarding() -> None:
    greet()


def test_ops_send_mail_that_belongs_to_their_run(
    served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    monkeypatch.setenv("PIVOTAL_EVENTS_URL", url)
    monkeypatch.setenv("PIVOTAL_SENDGRID_API_KEY", "SG.of_the_tests")
    monkeypatch.setenv("PIVOTAL_SENDGRID_API_BASE", served.sendgrid_base)
    get_settings.cache_clear()
    result = onboarding.execute_in_process(resources={"sendgrid": default_resources()["sendgrid"]})
    with closing(open_log(url)) as log:
        (event,) = (recorded.event for recorded in log.read(0, 10))
    assert (event.type, event.aggregate_id) == ("pivotal.sendgrid.email.sent", result.output_for_node("greet"))
    assert event.metadata.correlation_id == result.run_id


def test_a_key_comes_from_the_variable_that_is_named(
    served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_SENDGRID_KEY", "SG.of_the_tests")
    resource = SendGridResource(
        api_key=dg.EnvVar("OTHER_SENDGRID_KEY"),
        api_base=served.sendgrid_base,
        events_url=f"sqlite:///{tmp_path / 'events.db'}",
    )
    assert onboarding.execute_in_process(resources={"sendgrid": resource}).success


def test_without_a_key_the_variable_is_named() -> None:
    with pytest.raises(PivotalError, match="PIVOTAL_SENDGRID_API_KEY"), SendGridResource().open():
        pytest.fail("it opened")

"""Twilio's resource, in a run of Dagster's, against the sandbox."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from errors import PivotalError
from events.log import open_log
from integrations.twilio import Sms
from resources import default_resources
from resources.twilio import TwilioResource
from sandbox.serve import Running
from sandbox.sms import NUMBERS
from settings import get_settings

ACCOUNT = "AC" + "0" * 32


@dg.op
def greet(twilio: TwilioResource) -> str:
    with twilio.open() as client:
        sent = client.messages.send(Sms(to="+14155550100", sender=NUMBERS[0], body="Hello"), operation_id="hello-1")
    return sent.message.sid


@dg.job
def onboarding() -> None:
    greet()


def test_ops_send_messages_that_belong_to_their_run_and_a_rerun_sends_none(
    served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    monkeypatch.setenv("PIVOTAL_EVENTS_URL", url)
    monkeypatch.setenv("PIVOTAL_TWILIO_ACCOUNT_SID", ACCOUNT)
    monkeypatch.setenv("PIVOTAL_TWILIO_API_KEY", "SK" + "1" * 32)
    monkeypatch.setenv("PIVOTAL_TWILIO_SECRET", "of the tests")
    monkeypatch.setenv("PIVOTAL_TWILIO_API_BASE", served.twilio_base)
    get_settings.cache_clear()
    first, again = (
        onboarding.execute_in_process(resources={"twilio": default_resources()["twilio"]}) for _ in range(2)
    )
    with closing(open_log(url)) as log:
        (event,) = (recorded.event for recorded in log.read(0, 10, types=["*.sent"]))
    assert (event.type, event.aggregate_id) == ("pivotal.twilio.sms.sent", first.output_for_node("greet"))
    assert event.metadata.correlation_id == first.run_id
    assert again.output_for_node("greet") == first.output_for_node("greet")


def test_a_secret_comes_from_the_variable_that_is_named(
    served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_TWILIO_SECRET", "of the tests")
    resource = TwilioResource(
        account_sid=ACCOUNT,
        secret=dg.EnvVar("OTHER_TWILIO_SECRET"),
        api_base=served.twilio_base,
        events_url=f"sqlite:///{tmp_path / 'events.db'}",
    )
    assert onboarding.execute_in_process(resources={"twilio": resource}).success


@pytest.mark.parametrize(
    ("given", "variable"),
    [({}, "PIVOTAL_TWILIO_ACCOUNT_SID"), ({"account_sid": ACCOUNT}, "PIVOTAL_TWILIO_SECRET")],
)
def test_what_is_not_set_is_named(given: dict[str, Any], variable: str) -> None:
    with pytest.raises(PivotalError, match=variable), TwilioResource(**given).open():
        pytest.fail("it opened")

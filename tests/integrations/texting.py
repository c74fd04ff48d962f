"""What the tests of Twilio's client share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from events.log import EventLog, open_log
from integrations.calls import RetryBudget, idempotency_key
from integrations.twilio import Sms, Twilio, TwilioConfig
from sandbox.serve import Running
from sandbox.sms import NUMBERS
from sandbox.wire import Misbehaviour

ACCOUNT = "AC" + "0" * 32
SERVICE = "MG" + "0" * 32
SECRET = "auth_token_that_is_never_logged"
TRIES = 3
ADA = "+14155550100"
HELLO = Sms(to=ADA, sender=NUMBERS[0], body="Hello Ada")
KEY = idempotency_key("twilio.messages.create", "hello-1")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(open_log(f"sqlite:///{tmp_path / 'events.db'}")) as opened:
        yield opened


@pytest.fixture
def twilio(served: Running) -> Iterator[Twilio]:
    with client(served.twilio_base) as opened:
        yield opened


def client(base: str, log: EventLog | None = None, **changes: Any) -> Twilio:
    usual = {"account_sid": ACCOUNT, "secret": SecretStr(SECRET), "settle": 0.0}
    budget = RetryBudget(attempts=TRIES, first_wait=0.0)
    return Twilio(TwilioConfig(**{**usual, "api_base": base, "retry": budget, **changes}), log)


def goes_wrong(served: Running, *rules: dict[str, Any]) -> None:
    """The next calls go like this, one after the other."""
    for rule in rules:
        served.sandbox.wire.misbehave(Misbehaviour.model_validate({"service": "twilio", **rule}))


def calls(served: Running) -> str:
    """What was called: P for POST, G for GET."""
    return "".join(call.method[0] for call in served.sandbox.wire.calls)


WELL: dict[str, Any] = {"kind": "slow"}
"""A call that goes as it should."""

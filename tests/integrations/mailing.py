"""What the tests of SendGrid's client share."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from events.log import EventLog
from integrations.calls import RetryBudget
from integrations.sendgrid import Message, SendGrid, SendGridConfig
from sandbox.serve import Running

KEY = "SG.this_is_never_logged"
REFUSED_KEY = "not.SG.this_is_never_logged"
TRIES = 3
WELCOME = Message(
    sender="shop@example.com",
    to=("ada@example.com",),
    subject="Welcome",
    text="Hello",
    html='<a href="https://example.com">Hello</a>',
    categories=("welcome",),
)


def client(
    base: str, key: str = KEY, *, timeout: float = 20.0, events: EventLog | None = None, job_timeout: float = 20.0
) -> SendGrid:
    return SendGrid(
        SendGridConfig(
            api_key=SecretStr(key),
            api_base=base,
            timeout=timeout,
            retry=RetryBudget(attempts=TRIES, first_wait=0.01, longest_wait=2),
            job_timeout=job_timeout,
            job_wait=0.01,
        ),
        events,
    )


@pytest.fixture
def sendgrid(served: Running) -> SendGrid:
    return client(served.sendgrid_base)


@pytest.fixture
def told(served: Running, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events that the sandbox tells of its mails."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(served.sandbox.webhooks, "send", lambda _, body, __: told.extend(json.loads(body)))
    return told


def tries(served: Running) -> int:
    return len(served.sandbox.wire.calls)

"""Stripe, as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr, SecretStr

from errors import PivotalError
from events.cause import Cause, caused_by, current_cause
from resources.event_log import EventLogResource
from settings import get_settings

if TYPE_CHECKING:
    from integrations.stripe import Stripe


class StripeResource(dg.ConfigurableResource["Stripe"]):
    """Hands out Stripe's client. Dagster shows its configuration, so the key is left to the environment."""

    api_key: str | None = Field(
        default=None, description="The secret key; PIVOTAL_STRIPE_API_KEY if not given. Give it as an EnvVar only."
    )
    api_base: str | None = Field(
        default=None, description="Where Stripe's API answers; PIVOTAL_STRIPE_API_BASE if not given."
    )
    events_url: str | None = Field(
        default=None, description="The event log, where changes are told; PIVOTAL_EVENTS_URL if not given."
    )
    attempts: int = Field(default=4, ge=1, description="How often a call is tried, the first time included.")
    read_timeout: float = Field(default=30.0, gt=0, description="Seconds without a byte of an answer.")

    _run_id: str | None = PrivateAttr(None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Learns which run it works for."""
        self._run_id = context.run.run_id if context.run else None

    @contextmanager
    def open(self) -> Iterator[Stripe]:
        """The client. What it changes is told with the run as the cause, unless there is another one.

        Raises:
            PivotalError: There is no key.
            EventLogError: The event log cannot be opened.
        """
        from integrations.calls import RetryBudget
        from integrations.stripe import Stripe, StripeConfig

        settings = get_settings()
        key = SecretStr(self.api_key) if self.api_key else settings.stripe_api_key
        if key is None:
            raise PivotalError("Stripe's API key is not set", hint="set PIVOTAL_STRIPE_API_KEY (sk_... or rk_...)")
        config = StripeConfig(
            api_key=key,
            api_base=self.api_base or settings.stripe_api_base,
            read_timeout=self.read_timeout,
            retry=RetryBudget(attempts=self.attempts),
        )
        cause = current_cause() or (Cause(self._run_id) if self._run_id else None)
        with EventLogResource(url=self.events_url).open() as log:
            if cause is None:
                yield Stripe(config, log)
                return
            with caused_by(cause):
                yield Stripe(config, log)

"""Stripe, as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from errors import PivotalError
from resources.changing import ChangingResource
from settings import get_settings

if TYPE_CHECKING:
    from integrations.stripe import Stripe


class StripeResource(ChangingResource["Stripe"]):
    """Hands out Stripe's client. Dagster shows its configuration, so the key is left to the environment."""

    api_key: str | None = Field(
        default=None, description="The secret key; PIVOTAL_STRIPE_API_KEY if not given. Give it as an EnvVar only."
    )
    api_base: str | None = Field(
        default=None, description="Where Stripe's API answers; PIVOTAL_STRIPE_API_BASE if not given."
    )
    read_timeout: float = Field(default=30.0, gt=0, description="Seconds without a byte of an answer.")

    @contextmanager
    def open(self) -> Iterator[Stripe]:
        """The client. What it changes is told with the run as the cause, unless there is another one.

        Raises:
            PivotalError: There is no key.
            EventLogError: The event log cannot be opened.
        """
        from integrations.stripe import Stripe, StripeConfig

        settings = get_settings()
        key = SecretStr(self.api_key) if self.api_key else settings.stripe_api_key
        if key is None:
            raise PivotalError("Stripe's API key is not set", hint="set PIVOTAL_STRIPE_API_KEY (sk_... or rk_...)")
        config = StripeConfig(
            api_key=key,
            api_base=self.api_base or settings.stripe_api_base,
            read_timeout=self.read_timeout,
            retry=self.retry,
        )
        with self.told() as log:
            yield Stripe(config, log)

"""Twilio, as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from errors import PivotalError
from resources.changing import ChangingResource
from settings import get_settings

if TYPE_CHECKING:
    from integrations.twilio import Twilio


class TwilioResource(ChangingResource["Twilio"]):
    """Hands out Twilio's client. Dagster shows its configuration, so the secret is left to the environment."""

    account_sid: str | None = Field(
        default=None, description="The account (AC...); PIVOTAL_TWILIO_ACCOUNT_SID if not given."
    )
    api_key: str | None = Field(
        default=None, description="The SID of the API key (SK...); PIVOTAL_TWILIO_API_KEY if not given."
    )
    secret: str | None = Field(
        default=None,
        description="The API key's secret, or the auth token; PIVOTAL_TWILIO_SECRET if not given. Give it as an EnvVar "
        "only.",
    )
    api_base: str | None = Field(
        default=None, description="Where Twilio's API answers; PIVOTAL_TWILIO_API_BASE if not given."
    )
    status_callback: str | None = Field(
        default=None,
        description="Where Twilio tells what becomes of messages; PIVOTAL_TWILIO_STATUS_CALLBACK if not given.",
    )
    timeout: float = Field(default=30.0, gt=0, description="Seconds without a byte of an answer.")

    @contextmanager
    def open(self) -> Iterator[Twilio]:
        """The client. What it sends is told with the run as the cause, unless there is another one.

        Raises:
            PivotalError: The account or the secret is not set.
            EventLogError: The event log cannot be opened.
        """
        from integrations.twilio import Twilio, TwilioConfig

        settings = get_settings()
        account = self.account_sid or settings.twilio_account_sid
        secret = SecretStr(self.secret) if self.secret else settings.twilio_secret
        if account is None or secret is None:
            variable = "PIVOTAL_TWILIO_SECRET" if account else "PIVOTAL_TWILIO_ACCOUNT_SID"
            raise PivotalError(f"Twilio's account is not set: {variable} is missing", hint=f"set {variable}")
        config = TwilioConfig(
            account_sid=account,
            secret=secret,
            api_key=self.api_key or settings.twilio_api_key,
            api_base=self.api_base or settings.twilio_api_base,
            status_callback=self.status_callback or settings.twilio_status_callback,
            timeout=self.timeout,
            retry=self.retry,
        )
        with self.told() as log, Twilio(config, log) as client:
            yield client

"""SendGrid, as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from errors import PivotalError
from resources.changing import ChangingResource
from settings import get_settings

if TYPE_CHECKING:
    from integrations.sendgrid import SendGrid


class SendGridResource(ChangingResource["SendGrid"]):
    """Hands out SendGrid's client. Dagster shows its configuration, so the key is left to the environment."""

    api_key: str | None = Field(
        default=None, description="The API key; PIVOTAL_SENDGRID_API_KEY if not given. Give it as an EnvVar only."
    )
    api_base: str | None = Field(
        default=None, description="Where SendGrid's API answers; PIVOTAL_SENDGRID_API_BASE if not given."
    )
    timeout: float = Field(default=30.0, gt=0, description="Seconds without a byte of an answer.")
    job_timeout: float = Field(default=900.0, gt=0, description="Seconds that a change of contacts is followed.")

    @contextmanager
    def open(self) -> Iterator[SendGrid]:
        """The client. What it sends and changes is told with the run as the cause, unless there is another one.

        Raises:
            PivotalError: There is no key.
            EventLogError: The event log cannot be opened.
        """
        from integrations.sendgrid import SendGrid, SendGridConfig

        settings = get_settings()
        key = SecretStr(self.api_key) if self.api_key else settings.sendgrid_api_key
        if key is None:
            raise PivotalError("SendGrid's API key is not set", hint="set PIVOTAL_SENDGRID_API_KEY (SG....)")
        config = SendGridConfig(
            api_key=key,
            api_base=self.api_base or settings.sendgrid_api_base,
            timeout=self.timeout,
            retry=self.retry,
            job_timeout=self.job_timeout,
        )
        with self.told() as log:
            yield SendGrid(config, log)

"""Outlook's calendars, as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, TypeVar

from pydantic import Field, SecretStr

from errors import PivotalError
from resources.changing import ChangingResource
from settings import get_settings

if TYPE_CHECKING:
    from integrations.calendar import Outlook

T = TypeVar("T")


class OutlookResource(ChangingResource["Outlook"]):
    """Hands out Outlook's calendars. Dagster shows its configuration, so the secret is left to the environment."""

    tenant_id: str | None = Field(
        default=None, description="The directory's id or domain; PIVOTAL_OUTLOOK_TENANT_ID if not given."
    )
    client_id: str | None = Field(
        default=None, description="The application's id; PIVOTAL_OUTLOOK_CLIENT_ID if not given."
    )
    client_secret: str | None = Field(
        default=None, description="PIVOTAL_OUTLOOK_CLIENT_SECRET if not given. Give it as an EnvVar only."
    )
    user: str | None = Field(default=None, description="Whose calendars; PIVOTAL_OUTLOOK_USER if not given.")
    api_base: str | None = Field(
        default=None, description="Where Graph answers; PIVOTAL_OUTLOOK_API_BASE if not given."
    )
    login_base: str | None = Field(
        default=None, description="Where tokens are given; PIVOTAL_OUTLOOK_LOGIN_BASE if not given."
    )
    timeout: float = Field(default=30.0, gt=0, description="Seconds without a byte of an answer.")

    @contextmanager
    def open(self) -> Iterator[Outlook]:
        """The calendars. What is changed is told with the run as the cause, unless there is another one.

        Raises:
            PivotalError: Something of what is needed is not set.
            EventLogError: The event log cannot be opened.
        """
        from integrations.calendar import Outlook, OutlookConfig

        settings = get_settings()
        secret = SecretStr(self.client_secret) if self.client_secret else settings.outlook_client_secret
        config = OutlookConfig(
            tenant_id=_set("tenant_id", self.tenant_id or settings.outlook_tenant_id),
            client_id=_set("client_id", self.client_id or settings.outlook_client_id),
            client_secret=_set("client_secret", secret),
            user=_set("user", self.user or settings.outlook_user),
            api_base=self.api_base or settings.outlook_api_base,
            login_base=self.login_base or settings.outlook_login_base,
            timeout=self.timeout,
            watch_secret=settings.outlook_watch_secret,
            retry=self.retry,
        )
        with self.told() as log, closing(Outlook(config, log)) as calendar:
            yield calendar


def _set(name: str, value: T | None) -> T:
    if value is None:
        raise PivotalError(f"Outlook's {name} is not set", hint=f"set PIVOTAL_OUTLOOK_{name.upper()}")
    return value

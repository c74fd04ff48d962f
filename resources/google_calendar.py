"""Google Calendar, as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from errors import PivotalError
from resources.changing import ChangingResource
from settings import get_settings

if TYPE_CHECKING:
    from integrations.calendar import GoogleCalendar


class GoogleCalendarResource(ChangingResource["GoogleCalendar"]):
    """Hands out Google's calendars. Dagster shows its configuration, so the credentials are left to the environment."""

    credentials: str | None = Field(
        default=None,
        description="The JSON of a service account's key or of an authorized user, or its path; "
        "PIVOTAL_GOOGLE_CREDENTIALS if not given. Give it as an EnvVar only.",
    )
    subject: str | None = Field(
        default=None, description="Whom a service account acts for; PIVOTAL_GOOGLE_SUBJECT if not given."
    )
    api_base: str | None = Field(
        default=None, description="Where Google's API answers; PIVOTAL_GOOGLE_API_BASE if not given."
    )
    timeout: float = Field(default=30.0, gt=0, description="Seconds without a byte of an answer.")

    @contextmanager
    def open(self) -> Iterator[GoogleCalendar]:
        """The calendars. What is changed is told with the run as the cause, unless there is another one.

        Raises:
            PivotalError: There are no credentials.
            EventLogError: The event log cannot be opened.
        """
        from integrations.calendar import GoogleCalendar, GoogleCalendarConfig

        settings = get_settings()
        credentials = SecretStr(self.credentials) if self.credentials else settings.google_credentials
        if credentials is None:
            hint = "set PIVOTAL_GOOGLE_CREDENTIALS: a JSON, or the path of a file with it"
            raise PivotalError("Google's credentials are not set", hint=hint)
        config = GoogleCalendarConfig(
            credentials=credentials,
            subject=self.subject or settings.google_subject,
            api_base=self.api_base or settings.google_api_base,
            timeout=self.timeout,
            watch_secret=settings.google_watch_secret,
            retry=self.retry,
        )
        with self.told() as log, closing(GoogleCalendar(config, log)) as calendar:
            yield calendar

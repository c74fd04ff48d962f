"""S3, as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, SecretStr, model_validator

from resources.changing import ChangingResource
from settings import get_settings

if TYPE_CHECKING:
    from integrations.s3 import S3


class S3Resource(ChangingResource["S3"]):
    """Hands out S3's client. Dagster shows its configuration, so the secret is left to the environment."""

    endpoint_url: str | None = Field(
        default=None, description="Where S3 answers; PIVOTAL_S3_ENDPOINT_URL, or else Amazon's own, if not given."
    )
    region: str | None = Field(default=None, description="The buckets' region; AWS_REGION if not given.")
    access_key_id: str | None = Field(
        default=None, description="With secret_access_key; where AWS's own tools look for credentials if not given."
    )
    secret_access_key: str | None = Field(default=None, description="With access_key_id. Give both as an EnvVar only.")
    attempts: int = Field(default=5, ge=1, description="How often a call is tried, the first time included.")
    read_timeout: float = Field(default=60.0, gt=0, description="Seconds without a byte of an answer.")

    @model_validator(mode="after")
    def _whole_credentials(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give access_key_id and secret_access_key, or neither")
        return self

    @contextmanager
    def open(self) -> Iterator[S3]:
        """The client. What it changes is told with the run as the cause, unless there is another one.

        Raises:
            EventLogError: The event log cannot be opened.
        """
        from integrations.s3 import S3, configured

        secrets = {"access_key_id": self.access_key_id, "secret_access_key": self.secret_access_key}
        given: dict[str, Any] = {
            "endpoint_url": self.endpoint_url,
            "region": self.region,
            **{name: SecretStr(value) for name, value in secrets.items() if value is not None},
        }
        config = replace(
            configured(get_settings()),
            read_timeout=self.read_timeout,
            retry=self.retry,
            **{name: value for name, value in given.items() if value is not None},
        )
        with self.told() as log:
            yield S3(config, log)

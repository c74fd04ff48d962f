"""Settings: every environment variable the project reads, each documented once, here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def project_root() -> Path:
    """The folder that relative paths start from: here if it has `pipelines/`, else where the project stands."""
    here = Path.cwd()
    return here if (here / "pipelines").is_dir() else Path(__file__).resolve().parent


class Settings(BaseSettings):
    """What the environment (or `.env` in the project's root) may say. Names carry the prefix `PIVOTAL_`.

    Secrets are `SecretStr`: they do not show in logs, errors or `repr`.
    """

    model_config = SettingsConfigDict(
        env_prefix="PIVOTAL_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    root: Path = Field(default_factory=project_root, description="Folder that relative paths start from.")
    warehouse_url: str = Field(
        "duckdb:///data/warehouse.duckdb",
        description="The warehouse: duckdb:///file, sqlite:///file or postgresql://...",
    )
    lake: str = Field("data/lake", description="Folder under which file destinations of the demo are written.")
    events_url: str = Field("sqlite:///data/events.db", description="The event log.")
    lock_timeout: float = Field(60.0, gt=0, description="Seconds to wait for a database that another run holds.")
    read_timeout: float = Field(
        600.0, gt=0, description="Seconds that a database server, or DuckDB, may take for its next rows."
    )

    hash_key: SecretStr | None = Field(
        None,
        description="Key of `hash(...)` in pipelines, at least 32 characters; with another key, hashes are others.",
    )

    gateway_host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    gateway_port: int = Field(8000, ge=0, le=65535, description="Port that the gateway listens on.")
    webhook_tolerance: int = Field(
        300, gt=0, description="Seconds that a webhook's timestamp may be away from now, either way."
    )
    webhook_body_limit: int = Field(1_048_576, gt=0, description="Bytes that a webhook's body may have.")
    webhook_body_timeout: float = Field(10.0, gt=0, description="Seconds that a webhook's body may take to arrive.")

    stripe_api_base: str = Field("https://api.stripe.com", description="Where Stripe's API answers.")
    stripe_api_key: SecretStr | None = Field(None, description="Stripe's secret key (sk_...).")
    stripe_webhook_secrets: SecretStr | None = Field(
        None, description="Stripe's signing secrets (whsec_...), comma-separated; any of them is accepted."
    )
    sendgrid_api_base: str = Field("https://api.sendgrid.com", description="Where SendGrid's API answers.")
    sendgrid_api_key: SecretStr | None = Field(None, description="SendGrid's API key (SG....).")
    sendgrid_webhook_keys: str | None = Field(
        None, description="SendGrid's public verification keys (base64 or PEM), comma-separated."
    )

    s3_endpoint_url: str | None = Field(
        None,
        pattern="^https?://",
        description="Where S3 answers, if it is not Amazon's: http://minio:9000. Credentials and region are AWS's own "
        "variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_PROFILE).",
    )

    sandbox_host: str = Field("127.0.0.1", description="Address that the sandbox listens on.")
    sandbox_port: int = Field(8001, ge=0, le=65535, description="Port that the sandbox listens on.")

    def path(self, value: str) -> Path:
        """Where a path from a setting or a pipeline stands: relative ones start from `root`."""
        return self.root / value


@cache
def get_settings() -> Settings:
    """The process's settings, read once. Tests call `get_settings.cache_clear()`.

    Raises:
        pydantic.ValidationError: A variable has a value that does not fit.
    """
    return Settings()

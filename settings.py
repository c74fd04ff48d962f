"""Settings: every environment variable the project reads, each documented once, here."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
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
    events_url: str = Field(
        "sqlite:///data/events.db",
        description="The event log: sqlite:///file, postgresql://..., a database's URL, or kafka://host:9092/topic.",
    )
    events_keep: int | None = Field(
        None,
        ge=1,
        description="Days that events are kept; older ones that everybody has read are deleted each night. For as long "
        "is a repeated event recognised. For ever if not given.",
    )
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
    gateway_url: str | None = Field(
        None,
        pattern="^https?://",
        description="The gateway's address as the outside calls it: https://hooks.example.com. Twilio signs it; if it "
        "is not given, the request's own is taken, which a proxy in between changes.",
    )
    gateway_connection_limit: int = Field(
        500,
        gt=0,
        description="Connections that the gateway serves at once, idle ones too; those above hear 503. Each may hold a "
        "body of webhook_body_limit: together that bounds the memory.",
    )
    gateway_header_limit: int = Field(
        16_384, gt=0, description="Bytes that a request's target and headers may have together."
    )
    gateway_header_count: int = Field(100, gt=0, description="Headers that a request may have.")
    gateway_header_timeout: float = Field(
        10.0, gt=0, description="Seconds that a request's headers may take to arrive, from the connection's start on."
    )
    gateway_body_timeout: float = Field(
        10.0,
        gt=0,
        description="Seconds that a request's body, of a large one each MiB, may take to arrive, and its answer to be "
        "taken.",
    )
    webhook_tolerance: int = Field(
        300, gt=0, description="Seconds that a webhook's timestamp may be away from now, either way."
    )
    webhook_body_limit: int = Field(1_048_576, gt=0, description="Bytes that a webhook's body may have.")
    webhook_backlog_limit: int = Field(
        10_000,
        gt=0,
        description="Events that may wait in memory for the event log; while there are more, webhooks hear 503.",
    )

    stripe_api_base: str = Field("https://api.stripe.com", description="Where Stripe's API answers.")
    stripe_api_key: SecretStr | None = Field(None, description="Stripe's secret key (sk_...).")
    stripe_webhook_secrets: SecretStr | None = Field(
        None, description="Stripe's signing secrets (whsec_...), comma-separated; any of them is accepted."
    )
    sendgrid_api_base: str = Field(
        "https://api.sendgrid.com", pattern="^https?://", description="Where SendGrid's API answers."
    )
    sendgrid_api_key: SecretStr | None = Field(None, description="SendGrid's API key (SG....).")
    sendgrid_webhook_keys: str | None = Field(
        None, description="SendGrid's public verification keys (base64 or PEM), comma-separated."
    )
    sendgrid_inbound_keys: str | None = Field(
        None, description="The public keys of the security policies of inbound parse (base64 or PEM), comma-separated."
    )
    sendgrid_inbound_secrets: SecretStr | None = Field(
        None,
        description="Where inbound parse is not signed: the passwords in its URL (https://sendgrid:PASSWORD@...), "
        "comma-separated; any of them is accepted.",
    )
    sendgrid_inbound_limit: int = Field(
        33_554_432, gt=0, description="Bytes that a received mail may have; SendGrid sends 30 MB at most."
    )
    sendgrid_attachment_limit: int = Field(
        1_048_576,
        ge=0,
        description="Bytes of an attachment that its event holds; of a larger one it holds name, size and SHA-256.",
    )
    twilio_api_base: str = Field("https://api.twilio.com", description="Where Twilio's API answers.")
    twilio_account_sid: str | None = Field(None, description="Twilio's account (AC...).")
    twilio_api_key: str | None = Field(
        None, description="The SID of Twilio's API key (SK...); without one, twilio_secret is the auth token."
    )
    twilio_secret: SecretStr | None = Field(None, description="The secret of Twilio's API key, or the auth token.")
    twilio_status_callback: str | None = Field(
        None,
        pattern="^https?://",
        description="Where Twilio tells what becomes of messages: https://hooks.example.com/webhooks/twilio.",
    )
    twilio_webhook_tokens: SecretStr | None = Field(
        None, description="Twilio's auth tokens, comma-separated, which sign its webhooks; any of them is accepted."
    )

    s3_endpoint_url: str | None = Field(
        None,
        pattern="^https?://",
        description="Where S3 answers, if it is not Amazon's: http://minio:9000. Credentials are AWS's own variables "
        "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE), or the two below.",
    )
    s3_region: str | None = Field(
        None,
        validation_alias=AliasChoices("PIVOTAL_S3_REGION", "AWS_REGION"),
        description="The buckets' region (or AWS_REGION, AWS_DEFAULT_REGION, or that of the profile).",
    )
    s3_access_key_id: SecretStr | None = Field(
        None, description="With s3_secret_access_key: for S3 alone, in the place of AWS's own credentials."
    )
    s3_secret_access_key: SecretStr | None = Field(None, description="The secret of s3_access_key_id.")
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Where S3 sees the bucket: in the path, in the host's name; boto3 chooses."
    )
    step_outputs: str | None = Field(
        None,
        pattern="^s3://[^/]",
        description="Where Dagster's steps leave what they hand to each other, for runs on several machines: "
        "s3://bucket/prefix; the disk if not given.",
    )

    google_api_base: str = Field("https://www.googleapis.com", description="Where Google's APIs answer.")
    google_credentials: SecretStr | None = Field(
        None,
        description="Google's credentials: the JSON of a service account's key or of an authorized user, or its path.",
    )
    google_subject: str | None = Field(None, description="Whom the service account acts for; for itself if not set.")
    google_calendars: str = Field(
        "primary", description="The calendars in Google that are read and watched: ids, comma-separated."
    )
    google_watch_secret: SecretStr | None = Field(
        None,
        description="What Google's notifications of calendars carry (X-Goog-Channel-Token): any text of yours. "
        "Several, comma-separated: new watches carry the first, any of them is accepted.",
    )
    outlook_api_base: str = Field("https://graph.microsoft.com", description="Where Microsoft Graph answers.")
    outlook_login_base: str = Field(
        "https://login.microsoftonline.com", description="Where Microsoft gives tokens for Graph."
    )
    outlook_tenant_id: str | None = Field(None, description="The directory's id, or one of its domains.")
    outlook_client_id: str | None = Field(None, description="The registered application's id.")
    outlook_client_secret: SecretStr | None = Field(None, description="One of the application's secrets.")
    outlook_user: str | None = Field(
        None, description="Whose calendars in Outlook: an object id or a user principal name."
    )
    outlook_calendars: str = Field(
        "primary", description="The calendars in Outlook that are read and watched: ids, comma-separated."
    )
    outlook_watch_secret: SecretStr | None = Field(
        None,
        description="What Graph's notifications of calendars carry (clientState): 128 characters of yours at most. "
        "Several, comma-separated: new watches carry the first, any of them is accepted.",
    )

    sandbox_host: str = Field("127.0.0.1", description="Address that the sandbox listens on.")
    sandbox_port: int = Field(8001, ge=0, le=65535, description="Port that the sandbox listens on.")

    def path(self, value: str) -> Path:
        """Where a path from a setting or a pipeline stands: relative ones start from `root`."""
        return self.root / value


def several(values: SecretStr | str | None) -> list[str]:
    """The values of a variable that holds some, comma-separated, without the space around them.

    Args:
        values: The variable's; None if it is not set.
    """
    plain = values.get_secret_value() if isinstance(values, SecretStr) else values or ""
    return [value.strip() for value in plain.split(",") if value.strip()]


@cache
def get_settings() -> Settings:
    """The process's settings, read once. Tests call `get_settings.cache_clear()`.

    Raises:
        pydantic.ValidationError: A variable has a value that does not fit.
    """
    return Settings()

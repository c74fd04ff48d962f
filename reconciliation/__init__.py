"""What webhooks have missed: read from the providers themselves, sent through the same door. Knows nothing of Dagster.

Everything is published before the place to go on from is kept: killed anywhere, the next reading starts where the last
complete one did, and the log knows what it has already by (source, dedupe key).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from settings import Settings

PROVIDERS = ("stripe", "twilio", "google", "outlook")
"""Who can be asked for what was missed."""


def configured(settings: Settings) -> list[str]:
    """The providers that there are credentials for.

    Args:
        settings: The settings.
    """
    credentials = (
        settings.stripe_api_key,
        settings.twilio_secret,
        settings.google_credentials,
        settings.outlook_client_secret,
    )
    return [provider for provider, given in zip(PROVIDERS, credentials, strict=True) if given]

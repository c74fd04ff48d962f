"""Who sends webhooks: one module each, which tells its requests from forged ones and reads them."""

from __future__ import annotations

from gateway.declared import declared
from gateway.provider import Provider
from gateway.providers.custom import Custom
from gateway.providers.google import Google
from gateway.providers.outlook import Outlook
from gateway.providers.sendgrid import SendGrid
from gateway.providers.sendgrid_inbound import SendGridInbound
from gateway.providers.stripe import Stripe
from gateway.providers.twilio import Twilio
from settings import Settings


def providers(settings: Settings) -> list[Provider]:
    """Everyone whose webhooks are received.

    Args:
        settings: Secrets and limits, and the root with `webhooks.yaml`.

    Raises:
        ConfigError: `webhooks.yaml` has mistakes.
    """
    known: list[Provider] = [
        Stripe(settings), SendGrid(settings), SendGridInbound(settings), Twilio(settings), Google(settings),
        Outlook(settings),
    ]  # fmt: skip
    return known + [Custom(name, sender, settings) for name, sender in declared(settings.root).items()]

"""Twilio's messages: SMS and MMS.

    with Twilio(TwilioConfig(account_sid="AC...", api_key="SK...", secret=SecretStr("..."))) as twilio:
        sent = twilio.messages.send(Sms(to="+14155550100", sender="+14155550199", body="Hello"), operation_id="hello-1")

Every message has an `operation_id`, the caller's own name of this one doing: a message whose fate is not known is
looked for before it is sent again (see `integrations.twilio.messages`).
"""

from __future__ import annotations

from functools import cached_property

from integrations.twilio.client import Client, TwilioConfig
from integrations.twilio.errors import TwilioIntegrationError
from integrations.twilio.message import Message, Sms
from integrations.twilio.messages import Messages, Result, Sent

__all__ = ["Message", "Result", "Sent", "Sms", "Twilio", "TwilioConfig", "TwilioIntegrationError"]


class Twilio(Client):
    """Twilio's operations."""

    @cached_property
    def messages(self) -> Messages:
        """Messages: SMS and MMS."""
        return Messages(self)

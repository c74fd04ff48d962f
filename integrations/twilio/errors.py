"""Twilio's failures in its own words, as far as they are nobody's number."""

from __future__ import annotations

import re

from errors import IntegrationError
from integrations.http import Refusal, Response

_HINTS = {
    "20003": "check PIVOTAL_TWILIO_ACCOUNT_SID and the API key, or auth token, that belongs to it",
    "20404": "check the message's SID; it may belong to another account",
    "21211": "write the number in E.164: +, country code, number (+14155552671)",
    "21212": "write the sender in E.164, or give a messaging service",
    "21408": "allow the country in Twilio's console: Messaging > Settings > Geo permissions",
    "21606": "the sender must be a number of this account that can send messages",
    "21608": "a trial account writes to verified numbers only: verify the number, or upgrade the account",
    "21610": "the recipient answered STOP to this sender: write again only after START",
    "21614": "the number cannot receive messages: ask for a mobile one",
    "21617": "shorten the text: 1,600 characters at most",
    "30409": "only a message whose status is `scheduled` can be canceled",
    "35114": "schedule between 15 minutes and 35 days ahead",
}


class TwilioIntegrationError(IntegrationError):
    """Twilio refused a call or could not be reached. `code` is Twilio's own: https://www.twilio.com/docs/api/errors."""


def refusal(answer: Response) -> Refusal:
    """What Twilio says about a call that it refused: `{"code": 21211, "message": ..., "status": 400}`.

    Args:
        answer: Its answer; one that is not JSON is not Twilio's.
    """
    try:
        told = answer.data
    except ValueError:
        told = None
    said = told if isinstance(told, dict) else {}
    code = None if said.get("code") is None else str(said["code"])
    message = without_numbers(str(said.get("message") or ""))
    return Refusal(message, code, _HINTS.get(code or ""), answer.headers.get("twilio-request-id"))


def without_numbers(text: str) -> str:
    """A message of Twilio's without the phone numbers that it repeats: messages end up in logs."""
    return re.sub(r"\+[\d ().-]*\d|\(?\d[\d ().-]{4,}\d", "***", text)

"""Twilio's answers, read: one message, and lists of them page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from integrations.http import Response
from integrations.twilio.client import Client
from integrations.twilio.errors import TwilioIntegrationError
from integrations.twilio.message import Message

PAGE = "200"
"""Messages in a page."""


def message(operation: str, answer: Response) -> Message:
    """The message in an answer.

    Raises:
        TwilioIntegrationError: There is none in it: a proxy's, or a hotel's, page.
    """
    try:
        return Message.of(answer.data)
    except ValueError as error:
        raise _garbled(operation, answer) from error


def pages(client: Client, asked: Mapping[str, str]) -> Iterator[tuple[Response, Sequence[Message]]]:
    """The pages of a list, latest messages first; every page has the whole retry budget.

    Args:
        client: Asks for them.
        asked: The filters, as Twilio names them.

    Raises:
        TwilioIntegrationError: Twilio refused it, or could not be reached within the budget.
    """
    path, params = client.path("Messages"), {**asked, "PageSize": PAGE}
    while True:
        answer = client.get("messages.list", path, params)
        try:
            told = answer.data
            page, path = [Message.of(each) for each in told["messages"]], told.get("next_page_uri")
        except (ValueError, LookupError, TypeError) as error:
            raise _garbled("messages.list", answer) from error
        yield answer, page
        if not path:
            return
        params = {}  # the next page's address has them


def _garbled(operation: str, answer: Response) -> TwilioIntegrationError:
    return TwilioIntegrationError(
        f"twilio: {operation}: answered {answer.status} with something that is not Twilio's",
        service="twilio",
        operation=operation,
        status=answer.status,
        code="bad_answer",
        hint="check PIVOTAL_TWILIO_API_BASE, and what stands between here and there",
    )

"""SendGrid, as the sandbox plays it: strict `mail/send`, events of what becomes of each mail, suppressions.

Addresses decide what becomes of a mail: `bounce@...` bounces and is suppressed from then on, what is sent to a
suppressed address is dropped, every other mail is delivered, opened if it has HTML, and clicked if that has a link.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.mail import Invalid, Mail, Mistake, Personalization, read
from sandbox.webhooks import SendGridSigner, Webhooks
from sandbox.world import Clock, Ids

Json = dict[str, Any]

_HELP = "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html"
_AGENT = {"useragent": "Mozilla/5.0 (Sandbox)", "ip": "198.51.100.7"}
_ERRORS = {
    400: "Bad Request",
    401: "The provided authorization grant is invalid, expired, or revoked",
    403: "access forbidden",
    404: "Not Found",
    413: "Payload too large",
    429: "too many requests",
}


class SendGridService:
    """SendGrid, with one account.

    Args:
        clock: Tells the time.
        webhooks: Takes the events of mails.
        signer: Whose public key the settings show.
    """

    def __init__(self, clock: Clock, webhooks: Webhooks, signer: SendGridSigner) -> None:
        self._clock = clock
        self._webhooks = webhooks
        self._signer = signer
        self.reset(Ids())

    def reset(self, ids: Ids) -> None:
        """Starts again: nothing was sent, nobody is suppressed; ids come from `ids`."""
        self._ids = ids
        self._bounces: dict[str, Json] = {}

    def app(self) -> Starlette:
        """The API, from `/v3` on."""
        routes = [
            Route("/v3/mail/send", self._send, methods=["POST"]),
            Route("/v3/suppression/bounces", self._list_bounces, methods=["GET"]),
            Route("/v3/user/webhooks/event/settings/signed", self._show_key, methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _in_shape})

    async def _send(self, request: Request) -> Response:
        _authenticate(request)
        if not request.headers.get("Content-Type", "").startswith("application/json"):
            return _refused([("Content-Type should be application/json.", None)], 415)
        try:
            mail = read(await request.body())
        except Invalid as invalid:
            return _refused(invalid.mistakes)
        if mail.from_.email.startswith("unverified@"):
            return _refused([("The from address does not match a verified Sender Identity.", "from")], 403)
        message_id = self._ids.new("message", 22)
        self._deliver(mail, message_id)
        return Response(status_code=202, headers={"X-Message-Id": message_id})

    async def _list_bounces(self, request: Request) -> Response:
        _authenticate(request)
        asked = {name: _whole(request, name) for name in ("start_time", "end_time", "limit", "offset")}
        start, end = asked["start_time"] or 0, asked["end_time"] or self._clock.now()
        bounces = [each for each in self._bounces.values() if start <= each["created"] <= end]
        offset, limit = asked["offset"] or 0, asked["limit"] or 500
        return JSONResponse(bounces[offset : offset + limit])

    async def _show_key(self, request: Request) -> Response:
        _authenticate(request)
        return JSONResponse({"public_key": self._signer.public_key})

    def _deliver(self, mail: Mail, message_id: str) -> None:
        html = "".join(each.value for each in mail.content if each.type == "text/html")
        transport: list[Json] = []
        engagement: list[Json] = []
        for personalization in mail.personalizations:
            for _, _, email in personalization.recipients:
                about = self._about(mail, personalization, email, message_id)
                transport += self._transport(email, about)
                if transport[-1]["event"] == "delivered":
                    engagement += self._engagement(html, about)
        self._publish(transport)
        self._publish(engagement)

    def _about(self, mail: Mail, personalization: Personalization, email: str, message_id: str) -> Json:
        category = {"category": mail.categories} if mail.categories else {}
        return {
            **mail.custom_args,
            **personalization.custom_args,
            **category,
            "email": email,
            "timestamp": self._clock.now(),
            "smtp-id": f"<{message_id}@sandbox.invalid>",
            "sg_message_id": f"{message_id}.recvd-sandbox-1-0",
        }

    def _transport(self, email: str, about: Json) -> Iterator[Json]:
        if email.lower() in self._bounces:
            yield self._event("dropped", about, reason="Bounced Address", status="5.0.0")
            return
        yield self._event("processed", about)
        if not email.lower().startswith("bounce@"):
            yield self._event("delivered", about, response="250 OK")
            return
        reason, status = "550 5.1.1 The email account that you tried to reach does not exist", "5.1.1"
        bounce = {"created": self._clock.now(), "email": email, "reason": reason, "status": status}
        self._bounces[email.lower()] = bounce
        yield self._event("bounce", about, reason=reason, status=status, type="bounce")

    def _engagement(self, html: str, about: Json) -> Iterator[Json]:
        if html:
            yield self._event("open", about, **_AGENT)
        if link := re.search(r"""href=["'](https?://[^"']+)""", html):
            yield self._event("click", about, url=link[1], **_AGENT)

    def _event(self, kind: str, about: Json, **more: str) -> Json:
        return {**about, "event": kind, "sg_event_id": self._ids.new("sg_event", 22), **more}

    def _publish(self, events: list[Json]) -> None:
        if events:
            self._webhooks.send("sendgrid", json.dumps(events).encode(), [each["sg_event_id"] for each in events])


def error(status: int) -> Response:
    """SendGrid's answer to an HTTP status, in its own shape."""
    return _refused([(_ERRORS.get(status, "Internal Server Error"), None)], status)


def _refused(mistakes: list[Mistake], status: int = 400) -> JSONResponse:
    errors = [{"message": message, "field": field, "help": _HELP if field else None} for message, field in mistakes]
    return JSONResponse({"errors": errors}, status)


async def _in_shape(_: Request, exception: Exception) -> Response:
    if not isinstance(exception, HTTPException):
        raise exception
    return error(exception.status_code)


def _authenticate(request: Request) -> None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not key.startswith("SG."):
        raise HTTPException(401)


def _whole(request: Request, name: str) -> int | None:
    value = request.query_params.get(name)
    if value is None:
        return None
    if not value.isdigit():
        raise HTTPException(400)
    return int(value)

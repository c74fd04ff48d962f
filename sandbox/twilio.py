"""Twilio's messages, as the sandbox plays them: strict parameters, states with signed callbacks, inbound, opt-out.

Recipients decide what becomes of a message: `+15005550020` is not reached, messages to `+15005550021` fail, all others
are delivered at once. Who answers STOP gets no more until START. Scheduled messages go out when the clock is moved.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.sms import NUMBERS, Form, Refused, Wanted, read
from sandbox.webhooks import TwilioSigner, Webhooks
from sandbox.wire import own_path
from sandbox.world import Clock, Ids

Json = dict[str, Any]
Answers = Callable[[Request], Awaitable[Response]]

ACCOUNT = "AC" + "0" * 32
"""Whose history it is that the sandbox can start with, and whose numbers people write to."""

_VERSION = "2010-04-01"
_ENDS = {"+15005550020": ("sent", "undelivered", 30003), "+15005550021": ("failed", None, 30008)}
_STOP = {"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"}
_START = {"START", "YES", "UNSTOP"}
_CODES = {401: (20003, "Authenticate"), 405: (20004, "Method not allowed"), 429: (20429, "Too Many Requests")}


class Inbound(BaseModel):
    """A message that somebody sends to a number of the account."""

    model_config = ConfigDict(extra="forbid")

    sender: str = Field(pattern=r"^\+[1-9]\d{6,14}$")
    to: str = NUMBERS[0]
    body: str = ""
    media: list[str] = []


@dataclass(slots=True)
class Kept:
    """A message as the sandbox keeps it: `told` is what Twilio shows."""

    told: Json
    callback: str | None = None
    send_at: int | None = None
    ends: tuple[str, str | None, int | None] = field(default=("sent", "delivered", None))


class TwilioService:
    """Twilio, with one account.

    Args:
        clock: Tells the time.
        webhooks: Takes status callbacks and inbound messages.
        signer: Signs them.
    """

    def __init__(self, clock: Clock, webhooks: Webhooks, signer: TwilioSigner) -> None:
        self._clock, self._webhooks, self._signer = clock, webhooks, signer
        self.reset(Ids())

    def reset(self, ids: Ids) -> None:
        """Starts again: no message was sent, nobody opted out; SIDs come from `ids`."""
        self._ids = ids
        self._kept: dict[str, Kept] = {}
        self._opted_out: set[tuple[str, str]] = set()

    def seed(self, messages: int) -> None:
        """Gives the account `ACCOUNT` a history: a message an hour, every tenth not delivered; nobody is told of it."""
        now = self._clock.now()
        for number in range(messages, 0, -1):
            to = "+15005550020" if number % 10 == 0 else f"+1415555{number % 10_000:04}"
            body = f"Order {number} is on its way."
            with self._clock.at(now - 3600 * number):
                self.create(ACCOUNT, {"To": [to], "From": [NUMBERS[number % 2]], "Body": [body]})

    @property
    def messages(self) -> list[Json]:
        """All messages as Twilio shows them, oldest first."""
        return [kept.told for kept in self._kept.values()]

    def app(self) -> Starlette:
        """The API, from `/2010-04-01` on."""
        path = f"/{_VERSION}/Accounts/{{account}}/Messages"
        routes = [
            Route(f"{path}.json", self._answering(self._create), methods=["POST"]),
            Route(f"{path}.json", self._answering(self._list), methods=["GET"]),
            Route(f"{path}/{{sid}}.json", self._answering(self._get), methods=["GET"]),
            Route(f"{path}/{{sid}}.json", self._answering(self._update), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_door})

    def tick(self) -> None:
        """Sends the scheduled messages that are due."""
        for kept in [*self._kept.values()]:
            if kept.told["status"] == "scheduled" and (kept.send_at or 0) <= self._clock.now():
                self._send(kept)

    def create(self, account: str, form: Form) -> Json:
        """Takes a message as its parameters say, and shows it as it is before anything becomes of it.

        Raises:
            Refused: Twilio would not take it.
        """
        wanted = read(form, self._clock.now(), lambda to, sender: (to, sender) in self._opted_out)
        sid = self._sid("MM" if wanted.media else "SM")
        told = self._told(account, sid, wanted.to, wanted.body, len(wanted.media))
        kept = Kept(told | _first(wanted), wanted.callback, wanted.send_at)
        kept.ends = _ENDS.get(wanted.to, kept.ends)
        self._kept[sid] = kept
        answer = dict(kept.told)
        if wanted.send_at is None:
            self._send(kept)
        return answer

    def receive(self, inbound: Inbound) -> None:
        """Takes a message from outside; the receiver hears of it, and STOP and START are heeded."""
        sid = self._sid("MM" if inbound.media else "SM")
        told = self._told(ACCOUNT, sid, inbound.to, inbound.body, len(inbound.media))
        now = _rfc2822(self._clock.now())
        told |= {"from": inbound.sender, "direction": "inbound", "status": "received", "date_sent": now}
        self._kept[sid] = Kept(told)
        opting = self._opt(inbound)
        about = {"SmsMessageSid": sid, "SmsStatus": "received", "Body": inbound.body}
        about |= {"NumMedia": str(len(inbound.media)), "NumSegments": told["num_segments"]}
        about |= {f"MediaUrl{index}": url for index, url in enumerate(inbound.media)}
        for endpoint in self._webhooks.endpoints:
            if endpoint.service == "twilio":
                self._tell(endpoint.url, told, about | opting)

    def _opt(self, inbound: Inbound) -> dict[str, str]:
        word, pair = inbound.body.strip().upper(), (inbound.sender, inbound.to)
        if word in _STOP:
            self._opted_out.add(pair)
            return {"OptOutType": "STOP"}
        if word in _START:
            self._opted_out.discard(pair)
            return {"OptOutType": "START"}
        return {}

    def _answering(self, work: Callable[[Request, str, Form], Json]) -> Answers:
        async def answer(request: Request) -> Response:
            account = request.path_params["account"]
            try:
                _authenticate(request, account)
                sent = (await request.body()).decode() if request.method == "POST" else request.url.query
                told: Json = work(request, account, parse_qs(sent, keep_blank_values=True))
                answered = JSONResponse(told, 201 if work == self._create else 200)
            except Refused as refused:
                answered = _refused(refused)
            answered.headers["Twilio-Request-Id"] = self._sid("RQ")
            return answered

        return answer

    def _create(self, _: Request, account: str, form: Form) -> Json:
        return self.create(account, form)

    def _list(self, request: Request, account: str, asked: Form) -> Json:
        for name in asked.keys() - {
            "To",
            "From",
            "DateSent",
            "DateSent<",
            "DateSent>",
            "PageSize",
            "Page",
            "PageToken",
        }:
            raise Refused(20001, f"Unknown parameter: {name}")
        size = _page_size(asked)
        fits = [told for told in self.messages[::-1] if told["account_sid"] == account and _passes(told, asked)]
        sids = [told["sid"] for told in fits]
        after = asked.get("PageToken", [""])[0].removeprefix("PA")
        start = sids.index(after) + 1 if after in sids else 0
        page, path = fits[start : start + size], own_path(request.scope)
        following = {**{name: values[0] for name, values in asked.items()}, "PageSize": str(size)}
        more = start + size < len(fits)
        uri = f"{path}?{urlencode({**following, 'PageToken': 'PA' + page[-1]['sid']})}" if more else None
        return {"messages": page, "page_size": size, "start": start, "uri": path, "next_page_uri": uri}

    def _get(self, request: Request, account: str, _: Form) -> Json:
        return self._find(request, account).told

    def _update(self, request: Request, account: str, form: Form) -> Json:
        kept = self._find(request, account)
        if form != {"Status": ["canceled"]}:
            raise Refused(20001, "The sandbox acts on Status=canceled only")
        if kept.told["status"] != "scheduled":
            raise Refused(30409, "This message cannot be canceled")
        self._move(kept, "canceled")
        return kept.told

    def _find(self, request: Request, account: str) -> Kept:
        kept = self._kept.get(request.path_params["sid"])
        if kept is None or kept.told["account_sid"] != account:
            raise Refused(20404, f"The requested resource {own_path(request.scope)} was not found", 404)
        return kept

    def _send(self, kept: Kept) -> None:
        told = kept.told
        told["from"] = told["from"] or NUMBERS[0]
        told["num_segments"] = _segments(told["body"])
        if told["status"] != "queued":
            self._move(kept, "queued")
        for status in kept.ends[:2]:
            if status is not None:
                self._move(kept, status)

    def _move(self, kept: Kept, status: str) -> None:
        told, now = kept.told, _rfc2822(self._clock.now())
        told |= {"status": status, "date_updated": now}
        if status == "sent":
            told |= {"date_sent": now, "price": "-0.00790", "price_unit": "USD"}
        if status in {"undelivered", "failed"}:
            told |= {"error_code": kept.ends[2], "error_message": "Unreachable destination handset"}
        if kept.callback:
            wrong = {"ErrorCode": str(told["error_code"])} if told["error_code"] else {}
            self._tell(kept.callback, told, {"MessageStatus": status, "SmsStatus": status, **wrong})

    def _tell(self, url: str, told: Json, about: dict[str, str]) -> None:
        service = {"MessagingServiceSid": told["messaging_service_sid"]} if told["messaging_service_sid"] else {}
        params = {"MessageSid": told["sid"], "SmsSid": told["sid"], "AccountSid": told["account_sid"], **service}
        params |= {"From": told["from"] or "", "To": told["to"], "ApiVersion": _VERSION, **about}
        headers = self._signer.headers(url, params) | {"I-Twilio-Idempotency-Token": self._sid("token")}
        self._webhooks.post("twilio", url, urlencode(params).encode(), [told["sid"]], headers)

    def _sid(self, prefix: str) -> str:
        return prefix + hashlib.sha256(self._ids.new(prefix).encode()).hexdigest()[:32]

    def _told(self, account: str, sid: str, to: str, body: str, media: int) -> Json:
        now, uri = _rfc2822(self._clock.now()), f"/{_VERSION}/Accounts/{account}/Messages/{sid}"
        return {
            "account_sid": account, "api_version": _VERSION, "body": body, "date_created": now, "date_sent": None,
            "date_updated": now, "direction": "outbound-api", "error_code": None, "error_message": None, "from": None,
            "messaging_service_sid": None, "num_media": str(media), "num_segments": _segments(body), "price": None,
            "price_unit": None, "sid": sid, "status": "queued", "subresource_uris": {"media": f"{uri}/Media.json"},
            "to": to, "uri": f"{uri}.json",
        }  # fmt: skip


def error(status: int) -> Response:
    """Twilio's answer to an HTTP status, in its own shape."""
    code, message = _CODES.get(status, (20000 + status, "The request could not be handled"))
    return _refused(Refused(code, message, status))


def _first(wanted: Wanted) -> Json:
    """What a message is as long as nothing has become of it."""
    if wanted.service is None:
        return {"from": wanted.sender}
    status = "accepted" if wanted.send_at is None else "scheduled"
    return {"from": wanted.sender, "messaging_service_sid": wanted.service, "status": status, "num_segments": "0"}


def _refused(refused: Refused) -> JSONResponse:
    more = f"https://www.twilio.com/docs/errors/{refused.code}"
    told = {"code": refused.code, "message": refused.message, "more_info": more, "status": refused.status}
    return JSONResponse(told, refused.status)


async def _no_such_door(request: Request, exception: Exception) -> Response:
    if not isinstance(exception, HTTPException):
        raise exception
    if exception.status_code != 404:
        return error(exception.status_code)
    return _refused(Refused(20404, f"The requested resource {own_path(request.scope)} was not found", 404))


def _authenticate(request: Request, account: str) -> None:
    scheme, _, pair = request.headers.get("Authorization", "").partition(" ")
    try:
        user, _, secret = base64.b64decode(pair, validate=True).decode().partition(":")
    except ValueError:
        user, secret = "", ""
    own = user == account or re.fullmatch("SK[0-9a-f]{32}", user)
    if scheme != "Basic" or not own or not secret or not re.fullmatch("AC[0-9a-f]{32}", account):
        raise Refused(20003, "Authenticate", 401)


def _page_size(asked: Form) -> int:
    text = asked.get("PageSize", ["50"])[0]
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise Refused(20001, "PageSize must be between 1 and 1000")
    return int(text)


def _passes(told: Json, asked: Form) -> bool:
    for name, field_ in (("To", "to"), ("From", "from")):
        if name in asked and told[field_] != asked[name][0]:
            return False
    bounds = {name: _date(asked[name][0]) for name in ("DateSent", "DateSent<", "DateSent>") if name in asked}
    sent = told["date_sent"] and datetime.strptime(told["date_sent"], "%a, %d %b %Y %H:%M:%S %z")
    tests = {
        "DateSent": lambda bound: sent.date() == bound.date(),
        "DateSent<": lambda bound: sent <= bound,
        "DateSent>": lambda bound: sent >= bound,
    }
    return all(sent and tests[name](bound) for name, bound in bounds.items())


def _date(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise Refused(20001, f"Invalid DateSent: {text}") from None


def _segments(body: str) -> str:
    """How many SMS it is: 160 characters in one, 153 in each of several; 70 and 67 beyond Latin letters."""
    alone, each = (160, 153) if body.isascii() else (70, 67)
    return "1" if len(body) <= alone else str(-(-len(body) // each))


def _rfc2822(now: int) -> str:
    return format_datetime(datetime.fromtimestamp(now, UTC))

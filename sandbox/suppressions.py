"""SendGrid's suppression lists, as the sandbox keeps them: who gets no mail, and the groups that one can leave."""

from __future__ import annotations

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.mail import is_address
from sandbox.mail_refusals import Json, Refused, Strict, body_of, query_of
from sandbox.world import Clock

LISTS = ("bounces", "blocks", "spam_reports", "invalid_emails", "unsubscribes")
_DROPPED = {
    "bounces": "Bounced Address",
    "spam_reports": "Spam Reporting Address",
    "invalid_emails": "Invalid",
    "unsubscribes": "Unsubscribed Address",
}
"""Why mail to an address on a list is dropped; a block is for one mail only."""


class _Between(Strict):
    start_time: int = Field(0, ge=0)
    end_time: int | None = Field(None, ge=0)
    limit: int = Field(500, ge=1, le=500)
    offset: int = Field(0, ge=0)


class _Off(Strict):
    emails: list[str] = Field([])
    delete_all: bool = False


class _On(Strict):
    recipient_emails: list[str] = Field(min_length=1)


class _Group(Strict):
    name: str = Field(min_length=1, max_length=30)
    description: str = Field(min_length=1, max_length=100)
    is_default: bool = False


class Suppressions:
    """The lists of one account.

    Args:
        clock: Tells the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lists: dict[str, dict[str, Json]] = {name: {} for name in LISTS}
        self._groups: dict[int, Json] = {}
        self._members: dict[int, dict[str, int]] = {}

    def put(self, name: str, email: str, **why: str) -> None:
        """Puts an address on a list."""
        self._lists[name][email.lower()] = {"created": self._clock.now(), "email": email, **why}

    def on(self, name: str) -> list[str]:
        """The addresses on a list."""
        return list(self._lists[name])

    def leave(self, group: int, email: str) -> None:
        """Takes an address out of who gets a group's mail."""
        self._members[group][email.lower()] = self._clock.now()

    def has_group(self, group: int) -> bool:
        """Whether there is such a group."""
        return group in self._groups

    def reason(self, email: str, group: int | None) -> str | None:
        """Why an address gets no mail (of a group); None if it does."""
        if group is not None and email.lower() in self._members.get(group, {}):
            return "Unsubscribed Address"
        return next((why for name, why in _DROPPED.items() if email.lower() in self._lists[name]), None)

    def routes(self) -> list[Route]:
        """The API, from `/v3` on."""
        group = "/v3/asm/groups/{group:int}/suppressions"
        return [
            Route("/v3/suppression/{name}", self._list, methods=["GET"]),
            Route("/v3/suppression/{name}", self._delete, methods=["DELETE"]),
            Route("/v3/asm/suppressions/global", self._unsubscribe, methods=["POST"]),
            Route("/v3/asm/suppressions/global/{email}", self._resubscribe, methods=["DELETE"]),
            Route("/v3/asm/groups", self._create_group, methods=["POST"]),
            Route("/v3/asm/groups", self._list_groups, methods=["GET"]),
            Route(group, self._leave_group, methods=["POST"]),
            Route(group, self._list_group, methods=["GET"]),
            Route(f"{group}/{{email}}", self._rejoin_group, methods=["DELETE"]),
        ]

    async def _list(self, request: Request) -> Response:
        between, entries = query_of(request, _Between), self._of(request)
        end = self._clock.now() if between.end_time is None else between.end_time
        within = [each for each in entries.values() if between.start_time <= each["created"] <= end]
        return JSONResponse(within[between.offset : between.offset + between.limit])

    async def _delete(self, request: Request) -> Response:
        entries, asked = self._of(request), await body_of(request, _Off)
        if request.path_params["name"] == "unsubscribes":
            raise Refused(("Method Not Allowed", None), status=405)
        if asked.delete_all == bool(asked.emails):
            raise Refused(("emails or delete_all required, and not both", "emails"))
        for email in list(entries) if asked.delete_all else asked.emails:
            entries.pop(email.lower(), None)
        return Response(status_code=204)

    async def _unsubscribe(self, request: Request) -> Response:
        emails = await _addresses(request)
        for email in emails:
            self.put("unsubscribes", email)
        return JSONResponse({"recipient_emails": emails}, 201)

    async def _resubscribe(self, request: Request) -> Response:
        self._lists["unsubscribes"].pop(request.path_params["email"].lower(), None)
        return Response(status_code=204)

    async def _create_group(self, request: Request) -> Response:
        asked = await body_of(request, _Group)
        if any(each["name"] == asked.name for each in self._groups.values()):
            raise Refused((f"group already exists with name: {asked.name}", "name"))
        number = 100 + len(self._groups)
        self._groups[number] = {"id": number, **asked.model_dump()}
        self._members[number] = {}
        return JSONResponse(self._groups[number], 201)

    async def _list_groups(self, _: Request) -> Response:
        return JSONResponse([{**each, "unsubscribes": len(self._members[id_])} for id_, each in self._groups.items()])

    async def _leave_group(self, request: Request) -> Response:
        emails, group = await _addresses(request), request.path_params["group"]
        for email in emails:
            # As SendGrid does it: a group that is not there is everything.
            self.leave(group, email) if group in self._groups else self.put("unsubscribes", email)
        return JSONResponse({"recipient_emails": emails}, 201)

    async def _list_group(self, request: Request) -> Response:
        return JSONResponse([*self._in_group(request)])

    async def _rejoin_group(self, request: Request) -> Response:
        self._in_group(request).pop(request.path_params["email"].lower(), None)
        return Response(status_code=204)

    def _of(self, request: Request) -> dict[str, Json]:
        name = request.path_params["name"]
        if name not in self._lists:
            raise Refused(("Not Found", None), status=404)
        return self._lists[name]

    def _in_group(self, request: Request) -> dict[str, int]:
        group = request.path_params["group"]
        if group not in self._groups:
            raise Refused(("resource not found", None), status=404)
        return self._members[group]


async def _addresses(request: Request) -> list[str]:
    emails = (await body_of(request, _On)).recipient_emails
    if wrong := [place for place, email in enumerate(emails) if not is_address(email)]:
        raise Refused(*(("invalid email address", f"recipient_emails.{place}") for place in wrong))
    return emails

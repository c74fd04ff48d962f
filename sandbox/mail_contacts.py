"""The contacts of SendGrid's Marketing Campaigns, as the sandbox keeps them. Changes are jobs.

A job is pending at the first look, and done at the next, or when contacts are asked for. Addresses decide what becomes
of one: `refused@...` cannot be taken, a job with `failing@...` fails, one with `stuck@...` is never done.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.mail import is_address
from sandbox.mail_refusals import Json, Refused, Strict, body_of, query_of
from sandbox.world import Clock, Ids

_MOST_BYTES = 6 * 1024 * 1024
_TERM = re.compile(r"(\w+)\s*(=|LIKE)\s*'([^']*)'|CONTAINS\(list_ids,\s*'([^']*)'\)", re.IGNORECASE)


class _Contact(Strict):
    email: str = Field(min_length=1, max_length=254)
    first_name: str | None = Field(None, max_length=50)
    last_name: str | None = Field(None, max_length=50)
    phone_number: str | None = None
    external_id: str | None = Field(None, max_length=254)
    address_line_1: str | None = Field(None, max_length=100)
    address_line_2: str | None = Field(None, max_length=100)
    city: str | None = Field(None, max_length=60)
    state_province_region: str | None = Field(None, max_length=50)
    postal_code: str | None = None
    country: str | None = Field(None, max_length=50)
    custom_fields: dict[str, str | int | float] | None = None


class _Upsert(Strict):
    contacts: list[_Contact] = Field(min_length=1, max_length=30_000)
    list_ids: list[str] = Field([])


class _Delete(Strict):
    ids: str | None = None
    delete_all_contacts: Literal["true"] | None = None


class _Search(Strict):
    query: str = Field(min_length=1)


class _Find(Strict):
    emails: list[str] = Field(min_length=1, max_length=100)


@dataclass
class _Job:
    id: str
    kind: Literal["upsert", "delete"]
    contacts: list[Json] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    looks: int = 0
    status: str = "pending"
    results: Json = field(default_factory=dict)


class Contacts:
    """The contacts of one account.

    Args:
        clock: Tells the time.
        ids: Gives ids.
    """

    def __init__(self, clock: Clock, ids: Ids) -> None:
        self._clock, self._ids = clock, ids
        self._contacts: dict[str, Json] = {}
        self._jobs: dict[str, _Job] = {}

    def put(self, told: Json) -> bool:
        """Adds a contact, or changes it; tells whether it is new."""
        email, now = told["email"].lower(), datetime.fromtimestamp(self._clock.now(), UTC).isoformat()
        before = self._contacts.get(email)
        old = before or {"id": self._uuid("contact"), "created_at": now, "list_ids": []}
        lists = dict.fromkeys([*old["list_ids"], *told["list_ids"]])
        self._contacts[email] = {**old, **told, "email": email, "list_ids": [*lists], "updated_at": now}
        return before is None

    def routes(self) -> list[Route]:
        """The API, from `/v3` on."""
        contacts = "/v3/marketing/contacts"
        return [
            Route(contacts, self._upsert, methods=["PUT"]),
            Route(contacts, self._delete, methods=["DELETE"]),
            Route(f"{contacts}/imports/{{id}}", self._status, methods=["GET"]),
            Route(f"{contacts}/search", self._search, methods=["POST"]),
            Route(f"{contacts}/search/emails", self._find, methods=["POST"]),
        ]

    async def _upsert(self, request: Request) -> Response:
        if len(await request.body()) > _MOST_BYTES:
            raise Refused(("Payload too large", None), status=413)
        asked = await body_of(request, _Upsert)
        if wrong := [place for place, one in enumerate(asked.contacts) if not is_address(one.email)]:
            raise Refused(*(("email address is invalid", f"contacts[{place}].email") for place in wrong))
        for place, one in enumerate(asked.contacts):
            if unknown := [name for name in one.custom_fields or {} if not re.fullmatch(r"[ew]\d+_[TND]", name)]:
                raise Refused((f"unknown custom field: {unknown[0]}", f"contacts[{place}].custom_fields"))
        contacts = [{**one.model_dump(exclude_none=True), "list_ids": asked.list_ids} for one in asked.contacts]
        return self._begin(_Job(self._uuid("job"), "upsert", contacts=contacts))

    async def _delete(self, request: Request) -> Response:
        asked = query_of(request, _Delete)
        if (asked.ids is None) == (asked.delete_all_contacts is None):
            raise Refused(("ids or delete_all_contacts required", "ids"))
        self._settle()
        every = [each["id"] for each in self._contacts.values()]
        ids = every if asked.ids is None else asked.ids.split(",")
        return self._begin(_Job(self._uuid("job"), "delete", ids=ids))

    async def _status(self, request: Request) -> Response:
        job = self._jobs.get(request.path_params["id"])
        if job is None:
            raise Refused(("import not found", "id"), status=404)
        if job.looks:
            self._do(job)
        job.looks += 1
        when = datetime.fromtimestamp(self._clock.now(), UTC).isoformat()
        return JSONResponse(
            {"id": job.id, "status": job.status, "job_type": job.kind, "results": job.results, "started_at": when}
        )

    async def _search(self, request: Request) -> Response:
        query = (await body_of(request, _Search)).query
        terms = [_TERM.fullmatch(part.strip()) for part in re.split(r"\s+AND\s+", query, flags=re.IGNORECASE)]
        wanted = [term for term in terms if term is not None]
        if len(wanted) < len(terms):
            raise Refused(("the query is not one that the sandbox understands", "query"))
        self._settle()
        found = [each for each in self._contacts.values() if all(_fits(each, term) for term in wanted)]
        return JSONResponse({"result": found[:50], "contact_count": len(found), "_metadata": {}})

    async def _find(self, request: Request) -> Response:
        emails = (await body_of(request, _Find)).emails
        if any(not is_address(each) for each in emails):
            raise Refused(("invalid email address", "emails"))
        self._settle()
        found = {email.lower(): self._contacts.get(email.lower()) for email in emails}
        if not any(found.values()):
            raise Refused(("no contacts found for the emails provided", None), status=404)
        told = {email: {"contact": one} if one else {"error": "contact not found"} for email, one in found.items()}
        return JSONResponse({"result": told})

    def _begin(self, job: _Job) -> Response:
        self._jobs[job.id] = job
        return JSONResponse({"job_id": job.id}, 202)

    def _uuid(self, kind: str) -> str:
        return str(uuid.UUID(self._ids.new(kind, 16).encode().hex()))

    def _settle(self) -> None:
        for job in self._jobs.values():
            self._do(job)

    def _do(self, job: _Job) -> None:
        emails = [each["email"] for each in job.contacts]
        if job.status != "pending" or any(email.startswith("stuck@") for email in emails):
            return
        if any(email.startswith("failing@") for email in emails):
            job.status = "failed"
            job.results = {"requested_count": len(emails), "errored_count": len(emails)}
            return
        if job.kind == "delete":
            gone = [email for email, each in self._contacts.items() if each["id"] in job.ids]
            for email in gone:
                del self._contacts[email]
            job.status, job.results = "completed", {"requested_count": len(job.ids), "deleted_count": len(gone)}
            return
        self._take(job)

    def _take(self, job: _Job) -> None:
        taken = [each for each in job.contacts if not each["email"].startswith("refused@")]
        created = sum([self.put(each) for each in taken])
        errored = len(job.contacts) - len(taken)
        job.status = "errored" if errored else "completed"
        job.results = {
            "requested_count": len(job.contacts),
            "created_count": created,
            "updated_count": len(taken) - created,
            "errored_count": errored,
            **({"errors_url": f"https://sandbox.invalid/errors/{job.id}?signature=secret"} if errored else {}),
        }


def _fits(contact: Json, term: re.Match[str]) -> bool:
    name, comparison, value, list_id = term.groups()
    if list_id is not None:
        return list_id in contact["list_ids"]
    held = str(contact.get(name.lower(), ""))
    if comparison == "=":
        return bool(held == value)
    return re.fullmatch(re.escape(value).replace("%", ".*"), held) is not None

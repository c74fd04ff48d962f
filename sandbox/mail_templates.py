"""SendGrid's templates and their versions, as the sandbox keeps them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.mail_refusals import Json, Refused, Strict, body_of, query_of
from sandbox.world import Clock, Ids

_MOST = 300
_BLANK: Json = {"html_content": "", "plain_content": "", "generate_plain_content": True, "editor": "code"}
_NAME = Field(min_length=1, max_length=100)


class _New(Strict):
    name: str = _NAME
    generation: Literal["legacy", "dynamic"] = "legacy"


class _Renamed(Strict):
    name: str = _NAME


class _Page(Strict):
    generations: Literal["legacy", "dynamic", "legacy,dynamic"] = "legacy"
    page_size: int = Field(ge=1, le=200)
    page_token: int = Field(0, ge=0)


class _Change(Strict):
    name: str | None = Field(None, min_length=1, max_length=100)
    subject: str | None = Field(None, min_length=1, max_length=255)
    active: Literal[0, 1] | None = None
    html_content: str | None = Field(None, max_length=1_048_576)
    plain_content: str | None = Field(None, max_length=1_048_576)
    generate_plain_content: bool | None = None
    test_data: str | None = None
    editor: Literal["code", "design"] | None = None


class _Version(_Change):
    name: str = _NAME
    subject: str = Field(min_length=1, max_length=255)


class Templates:
    """The templates of one account.

    Args:
        clock: Tells the time.
        ids: Gives ids.
    """

    def __init__(self, clock: Clock, ids: Ids) -> None:
        self._clock, self._ids = clock, ids
        self._templates: dict[str, Json] = {}

    def active(self, template_id: str) -> Json | None:
        """What mails of a template look like: its active version, if it has one."""
        versions = self._templates.get(template_id, {}).get("versions", [])
        return next((version for version in versions if version["active"]), None)

    def add(self, name: str, generation: str) -> Json:
        """Adds a template without a version."""
        key = self._ids.new("template", 16).encode().hex()
        id_ = f"d-{key}" if generation == "dynamic" else str(uuid.UUID(key))
        self._templates[id_] = {
            "id": id_,
            "name": name,
            "generation": generation,
            "updated_at": self._now(),
            "versions": [],
        }
        return self._templates[id_]

    def add_version(self, template: Json, told: Json) -> Json:
        """Adds a version to a template; the first one is active, and one that says so."""
        id_ = str(uuid.UUID(self._ids.new("version", 16).encode().hex()))
        own = {"id": id_, "template_id": template["id"], "active": 0, "updated_at": self._now()}
        version = {**_BLANK, **told, **own}
        template["versions"].append(version)
        if told.get("active") == 1 or len(template["versions"]) == 1:
            _activate(template, version)
        return version

    def routes(self) -> list[Route]:
        """The API, from `/v3` on."""
        one, version = "/v3/templates/{id}", "/v3/templates/{id}/versions/{version}"
        return [
            Route("/v3/templates", self._create, methods=["POST"]),
            Route("/v3/templates", self._list, methods=["GET"]),
            Route(one, self._get, methods=["GET"]),
            Route(one, self._rename, methods=["PATCH"]),
            Route(one, self._delete, methods=["DELETE"]),
            Route(f"{one}/versions", self._create_version, methods=["POST"]),
            Route(version, self._get_version, methods=["GET"]),
            Route(version, self._update_version, methods=["PATCH"]),
            Route(version, self._delete_version, methods=["DELETE"]),
            Route(f"{version}/activate", self._activate, methods=["POST"]),
        ]

    async def _create(self, request: Request) -> Response:
        asked = await body_of(request, _New)
        if len(self._templates) == _MOST:
            raise Refused((f"you have reached the maximum of {_MOST} templates", None))
        return JSONResponse(self.add(asked.name, asked.generation), 201)

    async def _list(self, request: Request) -> Response:
        asked = query_of(request, _Page)
        known = [each for each in self._templates.values() if each["generation"] in asked.generations.split(",")]
        start = asked.page_token
        end, base = start + asked.page_size, str(request.url).partition("?")[0]
        where = {"self": str(request.url), "count": len(known)}
        if end < len(known):
            where["next"] = f"{base}?page_size={asked.page_size}&page_token={end}"
        return JSONResponse({"result": [_lean(each) for each in known[start:end]], "_metadata": where})

    async def _get(self, request: Request) -> Response:
        return JSONResponse(self._template(request))

    async def _rename(self, request: Request) -> Response:
        template, asked = self._template(request), await body_of(request, _Renamed)
        template |= {"name": asked.name, "updated_at": self._now()}
        return JSONResponse(template)

    async def _delete(self, request: Request) -> Response:
        del self._templates[self._template(request)["id"]]
        return Response(status_code=204)

    async def _create_version(self, request: Request) -> Response:
        template, asked = self._template(request), await body_of(request, _Version)
        _check(template, asked)
        return JSONResponse(self.add_version(template, asked.model_dump(exclude_none=True)), 201)

    async def _get_version(self, request: Request) -> Response:
        return JSONResponse(self._version(request)[1])

    async def _update_version(self, request: Request) -> Response:
        template, version = self._version(request)
        asked = await body_of(request, _Change)
        _check(template, asked, version)
        version |= {**asked.model_dump(exclude_none=True, exclude={"active"}), "updated_at": self._now()}
        if asked.active == 1:
            _activate(template, version)
        return JSONResponse(version)

    async def _delete_version(self, request: Request) -> Response:
        template, version = self._version(request)
        template["versions"].remove(version)
        return Response(status_code=204)

    async def _activate(self, request: Request) -> Response:
        template, version = self._version(request)
        _activate(template, version)
        return JSONResponse(version)

    def _template(self, request: Request) -> Json:
        template = self._templates.get(request.path_params["id"])
        if template is None:
            raise Refused(("Template not found", None), status=404)
        return template

    def _version(self, request: Request) -> tuple[Json, Json]:
        template, wanted = self._template(request), request.path_params["version"]
        for version in template["versions"]:
            if version["id"] == wanted:
                return template, version
        raise Refused(("Version not found", None), status=404)

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%d %H:%M:%S")


def _activate(template: Json, version: Json) -> None:
    for each in template["versions"]:
        each["active"] = int(each is version)


def _check(template: Json, asked: _Change, itself: Json | None = None) -> None:
    if any(each["name"] == asked.name for each in template["versions"] if each is not itself):
        raise Refused(("a version with this name exists already", "name"))
    for field in ("subject", "html_content", "plain_content"):
        text = getattr(asked, field) or ""
        if template["generation"] == "dynamic" and text.count("{{") != text.count("}}"):
            raise Refused(("template parse error: a tag is not closed", field))


def _lean(template: Json) -> Json:
    content = {"html_content", "plain_content", "test_data"}
    lean = [{name: value for name, value in each.items() if name not in content} for each in template["versions"]]
    return {**template, "versions": lean}

"""What Google's own description of an API says of a request: the one that the SDK carries with it.

A parameter or a field that the description does not know, or of another type, is refused in Google's shape; so is one
that the sandbox does not act on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from functools import cache
from typing import Any

from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse

Json = dict[str, Any]


class Refused(Exception):  # noqa: N818  (it is an answer, not a fault of the sandbox)
    """A request that Google does not do.

    Args:
        message: As Google words it.
        reason: Google's name of the failure.
        status: HTTP status.
        domain: Whose failure it is.
        location: The parameter, field or header that it is about.
    """

    def __init__(
        self,
        message: str,
        reason: str = "invalid",
        status: int = 400,
        *,
        domain: str = "global",
        location: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.reason, self.status = message, reason, status
        self.domain, self.location = domain, location


def in_shape(refused: Refused) -> JSONResponse:
    """The answer, as Google's older APIs word it."""
    each = {"domain": refused.domain, "reason": refused.reason, "message": refused.message}
    if refused.location is not None:
        kind = "header" if refused.location in {"If-Match", "Authorization"} else "parameter"
        each |= {"locationType": kind, "location": refused.location}
    return JSONResponse(
        {"error": {"errors": [each], "code": refused.status, "message": refused.message}}, refused.status
    )


def check_query(method: str, given: QueryParams, knows: frozenset[str]) -> Json:
    """A request's query, with values of the types that the description says.

    Args:
        method: The method's name: `events.list`.
        given: The query.
        knows: The parameters that the sandbox acts on.

    Raises:
        Refused: There is one that Google, or the sandbox, does not take.
    """
    described = {**_api()["parameters"], **_method(method)["parameters"]}
    query: Json = {}
    for name, value in given.multi_items():
        if name not in described:
            raise Refused(f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.')
        if name == "alt":
            continue
        if name not in knows:
            raise Refused(f"The sandbox does not act on the parameter {name}.", location=name)
        query[name] = _converted(described[name], name, value)
    return query


def check_body(method: str, raw: bytes, knows: frozenset[str]) -> Json:
    """A request's body.

    Args:
        method: As for `check_query`.
        raw: JSON.
        knows: The fields that the sandbox acts on.

    Raises:
        Refused: As for `check_query`.
    """
    try:
        body = json.loads(raw)
    except ValueError:
        raise Refused("Parse Error", "parseError") from None
    schema = _method(method)["request"]["$ref"]
    _check({"$ref": schema}, body, "")
    for name in body:
        if name not in knows:
            raise Refused(f"The sandbox does not act on the field {name}.", location=name)
    return dict(body)


@cache
def _api() -> Json:
    from googleapiclient.discovery_cache import get_static_doc

    described: Json = json.loads(get_static_doc("calendar", "v3"))
    return described


def _method(name: str) -> Json:
    resource, _, method = name.partition(".")
    described: Json = _api()["resources"][resource]["methods"][method]
    return described


def _converted(described: Json, name: str, value: str) -> object:
    if described["type"] == "boolean" and value in {"true", "false"}:
        return value == "true"
    if described["type"] == "integer" and re.fullmatch(r"-?\d{1,9}", value):
        low, high = described.get("minimum"), described.get("maximum")
        if (low is None or int(value) >= int(low)) and (high is None or int(value) <= int(high)):
            return int(value)
    if described["type"] == "string" and value in described.get("enum", [value]):
        if described.get("format") == "date-time":
            _check_format("date-time", value, name)
        return value
    raise Refused(f"Invalid value for parameter {name}: '{value}'", "invalidParameter", location=name)


def _check(schema: Mapping[str, Any], value: Any, place: str) -> None:  # noqa: ANN401  (JSON)
    """Null takes a value away in a patch, so it is a value of every type."""
    if value is None:
        return
    if "$ref" in schema:
        schema = _api()["schemas"][schema["$ref"]]
    kind = schema["type"]
    if not _is(kind, value):
        raise Refused(f"Invalid value at '{place or 'request'}': expected {kind}.", "badRequest", location=place)
    if kind == "object":
        _check_object(schema, value, place)
    elif kind == "array":
        for index, each in enumerate(value):
            _check(schema["items"], each, f"{place}[{index}]")
    elif "format" in schema and kind == "string":
        _check_format(schema["format"], value, place)


def _is(kind: str, value: object) -> bool:
    return isinstance(value, _TYPES[kind]) and not (kind == "integer" and isinstance(value, bool))


def _check_object(schema: Mapping[str, Any], value: Json, place: str) -> None:
    more = schema.get("additionalProperties")
    for name, each in value.items():
        described = schema.get("properties", {}).get(name, more)
        at = f"{place}.{name}" if place else name
        if described is None:
            where = f" at '{place}'" if place else ""
            raise Refused(f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.')
        _check(described, each, at)


def _check_format(name: str, value: str, place: str) -> None:
    try:
        if name == "date-time":
            datetime.fromisoformat(value)
        elif name == "date":
            date.fromisoformat(value)
        elif name == "int64":
            int(value)
    except ValueError:
        raise Refused(f'Invalid value for: Invalid format: "{value}"', "invalid", location=place) from None


_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "array": list,
    "any": object,
}

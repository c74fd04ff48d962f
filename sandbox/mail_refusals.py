"""How the sandbox's SendGrid reads requests, and what it answers to wrong ones, in SendGrid's words."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

Json = dict[str, Any]
Mistake = tuple[str, str | None]
"""What is wrong, and with which field."""
Model = TypeVar("Model", bound="Strict")

NOT_ACTED_ON = "Bad Request: the sandbox does not act on this field"
_HELP = "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html"
_STATUSES = {
    400: "Bad Request",
    401: "The provided authorization grant is invalid, expired, or revoked",
    403: "access forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Payload too large",
    429: "too many requests",
}


class Refused(Exception):  # noqa: N818  (it is an answer, not a fault of the sandbox)
    """A request that SendGrid does not do.

    Args:
        mistakes: All that is wrong with it.
        status: HTTP status.
    """

    def __init__(self, *mistakes: Mistake, status: int = 400) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes
        self.status = status


class Strict(BaseModel):
    """A request's body, or its parameters: nothing else may be in there."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


def refusal(*mistakes: Mistake, status: int = 400) -> JSONResponse:
    """SendGrid's answer to a wrong request."""
    errors = [{"message": message, "field": field, "help": _HELP if field else None} for message, field in mistakes]
    return JSONResponse({"errors": errors}, status)


def error(status: int) -> JSONResponse:
    """SendGrid's answer to an HTTP status, in its own shape."""
    return refusal((_STATUSES.get(status, "Internal Server Error"), None), status=status)


async def body_of(request: Request, model: type[Model]) -> Model:
    """A request's body.

    Raises:
        Refused: It is not what SendGrid would take.
    """
    if not request.headers.get("Content-Type", "").startswith("application/json"):
        raise Refused(("Content-Type should be application/json.", None), status=415)
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise Refused(*(_mistake(each["loc"], each["type"], each["msg"]) for each in error.errors())) from None


def query_of(request: Request, model: type[Model]) -> Model:
    """A request's parameters; all are text.

    Raises:
        Refused: They are not what SendGrid would take.
    """
    try:
        return model.model_validate_strings(dict(request.query_params))
    except ValidationError as error:
        raise Refused(*(_mistake(each["loc"], each["type"], each["msg"]) for each in error.errors())) from None


def _mistake(place: tuple[int | str, ...], kind: str, message: str) -> Mistake:
    field = ".".join(map(str, place))
    if kind == "missing":
        return f"{place[-1]} required", field
    if kind == "extra_forbidden":
        return NOT_ACTED_ON, field
    if kind == "json_invalid":
        return "invalid JSON", None
    return f"{place[-1] if place else 'request'} invalid: {message.lower()}", field

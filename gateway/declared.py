"""`webhooks.yaml`: senders that this project does not know, declared. Mistakes are told at once, with their places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from errors import ConfigError, Problem

if TYPE_CHECKING:
    from etl.documents import Document

FILE = "webhooks.yaml"
"""Where it stands, from the project's root."""

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")]
Place = Annotated[str, Field(pattern=r"^(header:[A-Za-z0-9-]{1,100}|[^.:\s]+(\.[^.:\s]+)*)$", max_length=200)]
"""Where something stands: `data.object.id` in the body's JSON, or `header:X-GitHub-Event`."""
Variable = Annotated[str, Field(pattern=r"^\$\{[A-Za-z_]\w*\}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Reading(_Strict):
    """Where the parts of an event stand in a request."""

    type: Place = Field("type", description="Where the event's type stands; without one, it is `received`.")
    id: Place = Field("id", description="Where the sender's own id of the event stands: by it, it is known again.")
    aggregate: Place | None = Field(None, description="Where the id of the thing stands that the event is about.")
    aggregate_type: str | None = Field(None, min_length=1, description="The kind of that thing; the sender's name.")
    time: Place = Field("timestamp", description="Where the moment stands: ISO 8601, or seconds since 1970.")


class _Sender(_Strict):
    secrets: Variable = Field(
        description="a variable that holds the secrets, comma-separated, any of which is accepted: ${GITHUB_SECRETS}"
    )
    event: Reading = Reading()


class Standard(_Sender):
    """Standard Webhooks (https://www.standardwebhooks.com)."""

    type: Literal["standard"]


class Hmac(_Sender):
    """An HMAC of the body in a header."""

    type: Literal["hmac"]
    header: HeaderName = Field(description="the header with the signature: X-Hub-Signature-256")
    algorithm: Literal["sha256", "sha1", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = Field("", description="What stands before the signature: sha256=")


class ApiKey(_Sender):
    """A secret in a header."""

    type: Literal["api_key"]
    header: HeaderName = "X-Api-Key"
    prefix: str = Field("", description="What stands before the key: Bearer, with a space in quotes.")


Sender = Annotated[Standard | Hmac | ApiKey, Field(discriminator="type")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]


class _File(RootModel[dict[Name, Sender]]):
    pass


def declared(root: Path) -> dict[str, Standard | Hmac | ApiKey]:
    """The senders of the project's `webhooks.yaml`, by name; none without the file.

    Args:
        root: The project's root.

    Raises:
        ConfigError: The file has mistakes.
    """
    path = root / FILE
    if not path.exists():
        return {}
    from etl.documents import read  # late: only who has the file pays for the engine's reader

    document = read(path, FILE)
    try:
        found = _File.model_validate(document.data).root
    except ValidationError as error:
        document.problems += [_explain(document, each) for each in error.errors(include_url=False)]
        found = {}
    if document.problems:
        raise ConfigError(sorted(document.problems))
    return found


def _explain(document: Document, details: Any) -> Problem:  # noqa: ANN401  (pydantic's own dictionary)
    from etl.mistakes import nearest, wording

    name, *rest = details["loc"]
    at = rest[1:] if rest and rest[0] in _TYPES else rest  # the union's tag, after the sender's name
    kind, path = details["type"], (name, *at)
    known = _fields(document, path)
    match kind:
        case _ if at == ["[key]"]:
            hint = "letters a-z, digits and _, a letter first: it is part of the URL and of the events' types"
            return document.problem((name,), "not a name", hint, at_key=True)
        case "missing":
            described = known[str(at[-1])].description
            return document.problem(path, f"`{at[-1]}` is missing in `{path[-2]}`", described or "")
        case "union_tag_not_found":
            return document.problem(path, f"`type` is missing in `{name}`", f"choose {', '.join(_TYPES)}")
        case "union_tag_invalid":
            return document.problem((name, "type"), "unknown type", nearest(str(details["ctx"]["tag"]), _TYPES))
        case "extra_forbidden":
            return document.problem(path, "unknown key", nearest(str(at[-1]), known), at_key=True)
    hint = known[str(at[-1])].description if at and str(at[-1]) in known else ""
    if at[-1:] == ["secrets"]:
        hint = "keep the secrets in a variable, and name it: ${GITHUB_SECRETS}"
    problem = document.problem(path, f"`{path[-1]}` is {wording(details)}", hint or "")
    return replace(problem, text="") if at[-1:] == ["secrets"] else problem


_TYPES: dict[str, type[_Sender]] = {"standard": Standard, "hmac": Hmac, "api_key": ApiKey}


def _fields(document: Document, path: tuple[Any, ...]) -> dict[str, Any]:
    """What is known where a mistake is."""
    sender = document.data.get(path[0])
    kind = sender.get("type") if isinstance(sender, dict) else None
    model: type[BaseModel] = Reading if path[1:2] == ("event",) and len(path) > 2 else _TYPES.get(str(kind), _Sender)
    return dict(model.model_fields)

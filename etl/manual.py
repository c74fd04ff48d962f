"""Every key of a pipeline file, for people: made from the same model that checks the files.

python -m etl.manual > docs/reference/pipeline.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etl.pipeline import json_schema

_HEAD = """# Every key of a pipeline file

Made from the model that checks the files (`python -m etl.manual`). The guide, with examples, is
[Pipelines](../pipelines.md). `${NAME}` and `${NAME:-default}` may stand in any text; they are read from the environment
or `.env` when they are used. A key without a default must be given.
"""

_SAMPLES = {"boolean": "true or false", "integer": "whole number", "number": "number", "string": "text"}


def manual() -> str:
    """The page, in Markdown."""
    schema = json_schema()
    models = {"Pipeline": schema, **schema["$defs"]}
    order = list(dict.fromkeys(_walk("Pipeline", models)))
    return "\n".join([_HEAD, *(_section(name, models[name]) for name in order)])


def _walk(name: str, models: Mapping[str, Any]) -> Iterator[str]:
    """A model and those that its keys lead to, in the order of the file."""
    yield name
    for used in re.findall(r'"#/\$defs/(\w+)"', json.dumps(_keys(models[name]))):
        yield from _walk(used, models)


def _section(name: str, model: Mapping[str, Any]) -> str:
    needed = _object(model).get("required", [])
    rows = [
        f"| `{key}` | {_kind(value)} | {_default(value) if key not in needed else ''} | {_told(value)} |"
        for key, value in _keys(model).items()
    ]
    table = ["| Key | Value | Default | What it says |", "|---|---|---|---|", *rows]
    return "\n".join([f"## {_title(name)}\n", f"{_cell(_object(model)['description'])}\n", *table, ""])


def _keys(model: Mapping[str, Any]) -> Mapping[str, Any]:
    keys: Mapping[str, Any] = _object(model)["properties"]
    return keys


def _object(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """A model, which may have a short form (a conversion's type alone), too."""
    return next(form for form in model.get("anyOf", [model]) if "properties" in form)


def _title(name: str) -> str:
    """`ApiSource` -> `Api source`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).capitalize()


def _kind(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{_title(name).lower()}](#{_title(name).lower().replace(' ', '-')})"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if choices := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(dict.fromkeys(_kind(each) for each in choices if each.get("type") != "null"))
    return _plain_kind(value)


def _plain_kind(value: Mapping[str, Any]) -> str:
    kind = value.get("type", "")
    if kind == "array":
        return f"list of {_kind(value['items'])}"
    if kind == "object":
        values = value["additionalProperties"]
        return f"name: {_kind(values) if isinstance(values, dict) else 'anything'}"
    if kind == "string" and value.get("format") == "date-time":
        return "timestamp"
    return str(value["format"]) if kind == "string" and "format" in value else _SAMPLES.get(kind, "anything")


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    return (
        "" if default in (None, {}, [], "") or isinstance(default, dict) else f"`{json.dumps(default).strip(chr(34))}`"
    )


def _told(value: Mapping[str, Any]) -> str:
    return _cell(value.get("description", ""))


def _cell(text: str) -> str:
    """A text on one line, in which a `|` ends no cell."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(manual(), end="")  # noqa: T201

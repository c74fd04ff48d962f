"""What pydantic finds wrong with a pipeline, in plain words, with the place in the file and the way to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import ValidationError

from errors import Problem
from etl.documents import Document, KeyPath
from etl.pipeline import json_schema

_Schema = Mapping[str, Any]

_MEMBERS = {"bool", "date", "datetime", "decimal", "int", "str"}
_WORDS = {
    "bool_parsing": "not true or false",
    "bool_type": "not true or false",
    "date_from_datetime_inexact": "not a date",
    "date_from_datetime_parsing": "not a date",
    "date_parsing": "not a date",
    "date_type": "not a date",
    "dict_type": "not a mapping",
    "greater_than": "not more than {gt}",
    "greater_than_equal": "less than {ge}",
    "int_from_float": "not a whole number",
    "int_parsing": "not a whole number",
    "int_type": "not a whole number",
    "less_than_equal": "more than {le}",
    "list_type": "not a list",
    "model_attributes_type": "not a mapping",
    "model_type": "not a mapping",
    "string_pattern_mismatch": "not written as it must be",
    "string_too_long": "longer than {max_length}",
    "string_too_short": "empty",
    "string_type": "not a text",
    "too_short": "empty",
}
_DATE = "write year, month and day: 2024-01-31"
_HINTS = {
    "date_from_datetime_inexact": _DATE,
    "date_from_datetime_parsing": _DATE,
    "date_parsing": _DATE,
    "date_type": _DATE,
    "dict_type": "write `key: value` lines below the key, indented",
    "list_type": "write [one, two], or lines that start with `- `",
    "model_attributes_type": "its keys stand below it, indented, or behind it in { }: {type: ...}",
    "string_type": "put it in quotes: '...'",
}
_NO_VALUE = "write one, or remove the line"


def explain(document: Document, error: ValidationError) -> list[Problem]:
    """Tells each mistake once.

    Args:
        document: The file.
        error: What validation of its data found.
    """
    found: dict[KeyPath, Problem] = {}
    mistyped = set()
    for details in error.errors(include_url=False):
        path = _path(document.data, details["loc"])
        if path in found:  # each member of a union complains for itself
            found[path] = document.problem(path, f"{_named(path)} is neither a number nor a text, true or false")
        else:
            found[path] = _explain(document, path, details)
        if details["type"] == "extra_forbidden":
            mistyped |= {(*path[:-1], name) for name in _close(str(path[-1]), _properties(document.data, path[:-1]))}
    return [problem for path, problem in found.items() if path not in mistyped]


def wording(details: Mapping[str, Any]) -> str:
    """What a value is not, of an error of pydantic's: `not a whole number`."""
    words: str = _WORDS.get(details["type"], details["msg"].replace("Input should be", "not"))
    return words.format(**details.get("ctx", {}))


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint: the known word that was meant, or else all of them."""
    known = list(known)
    if close := _close(word, known):
        return f"did you mean `{close[0]}`?"
    return f"choose {', '.join(known)}" if known else ""


def _close(word: str, known: Iterable[str]) -> list[str]:
    """The known word that is near enough to have been meant, if there is one."""
    folded = {name.lower(): name for name in known}
    return [folded[name] for name in get_close_matches(word.lower(), folded, 1, 0.6)]


def _explain(document: Document, path: KeyPath, details: Mapping[str, Any]) -> Problem:
    kind, context, given = details["type"], details.get("ctx", {}), details["input"]
    at_key = kind == "extra_forbidden" or details["loc"][-1] == "[key]"
    match kind:
        case "missing" | "union_tag_not_found":
            path = path if kind == "missing" else (*path, "type")
            message, hint = f"`{path[-1]}` is missing{_within(path[:-1])}", _describe(document, path)
            if near := kind == "union_tag_not_found" and _close("type", map(str, given)):
                path, at_key, message, hint = (*path[:-1], near[0]), True, "unknown key", "did you mean `type`?"
        case "union_tag_invalid":
            message, hint = f"unknown {path[-1]} type", nearest(str(context["tag"]), _quoted(context["expected_tags"]))
            path = (*path, "type")
        case "extra_forbidden":
            message, hint = "unknown key", _known_key(document, path)
        case "value_error":
            path = (*path, context["at"]) if "at" in context else path
            message, _, hint = details["msg"].removeprefix("Value error, ").partition("; ")
            message = message if message.startswith("`") else f"{_named(path)} is {message}"
        case _ if given is None:
            free = not _properties(document.data, path[:-1]) and isinstance(path[-1], str)
            hint = "write one; a comma ends a value inside { }: put what has one in quotes" if free else _NO_VALUE
            message = f"{_named(path)} has no value"
        case "literal_error":
            choices = _quoted(context["expected"])
            message, near = f"{_named(path)} is not {_any_of(choices)}", _close(str(given), choices)
            hint = f"did you mean `{near[0]}`?" if near else _describe(document, path)
        case _:
            message = f"{'a key' if at_key else _named(path)} is {wording(details)}"
            keys = ", ".join(_properties(document.data, path))
            hint = (
                f"its keys stand below it, indented: {keys}" if keys else _HINTS.get(kind) or _describe(document, path)
            )
    return document.problem(path, message, hint, at_key=at_key)


def _within(path: KeyPath) -> str:
    return f" in {_named(path)}" if path else ""


def _any_of(choices: Sequence[str]) -> str:
    *rest, last = choices
    return f"{', '.join(rest)} or {last}" if rest else last


def _named(path: KeyPath) -> str:
    return f"`{path[-1]}`" if isinstance(path[-1], str) else f"item {path[-1] + 1} of `{path[-2]}`"


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _path(data: object, loc: Sequence[str | int]) -> KeyPath:
    """The place in the data. Pydantic's own also names the members of unions that it tried.

    That is the tag (`database`) after a mapping with that `type`, or a type's name (`bool`) after a value.
    """
    path: list[str | int] = []
    tagged = False
    for step in loc:
        has_step = isinstance(data, dict) and step in data
        is_tag = isinstance(data, dict) and data.get("type") == step and not tagged
        if is_tag or step == "[key]" or (step in _MEMBERS and not has_step):
            tagged = is_tag
            continue
        path.append(step)
        data, tagged = _child(data, step), False
    return tuple(path)


def _child(data: object, step: str | int) -> object:
    if isinstance(data, dict):
        return data.get(step)
    return data[step] if isinstance(data, list) and isinstance(step, int) and step < len(data) else None


# --- what the schema knows ------------------------------------------------------------------------------------


@cache
def _schema() -> _Schema:
    return json_schema()


def _known_key(document: Document, path: KeyPath) -> str:
    """A hint for an unknown key: the right one, its right place, or all that are known here."""
    key = str(path[-1])
    if ":" in key:
        return "write a space after the colon"
    for section in ("source", "transform", "destination"):
        if path != (section, key) and key in _properties(document.data, (section,)):
            return f"`{key}` belongs under `{section}`"
    return nearest(key, _properties(document.data, path[:-1]))


def _describe(document: Document, path: KeyPath) -> str:
    """What the schema says about a key that this file should have, or has wrong."""
    if path[-1] == "type":
        union = _at(document.data, path[:-1])
        return f"choose {', '.join(union['discriminator']['mapping'])}" if "discriminator" in union else ""
    known = _properties(document.data, path[:-1]).get(str(path[-1]), {})
    return str(known.get("description", ""))


def _properties(data: object, path: KeyPath) -> _Schema:
    properties: _Schema = _at(data, path).get("properties", {})
    return properties


def _at(data: object, path: KeyPath) -> _Schema:
    """The schema of the value at a path, with unions decided by what the data says."""
    schema = _decide(_schema(), data)
    for step in path:
        data = _child(data, step)
        below = schema.get("properties", {}).get(step) or schema.get("items") or schema.get("additionalProperties")
        schema = _decide(below or {}, data)
    return schema


def _decide(schema: _Schema, data: object) -> _Schema:
    if "$ref" in schema:
        return _decide(_schema()["$defs"][schema["$ref"].rpartition("/")[2]], data)
    if "discriminator" in schema:
        tag = data.get("type") if isinstance(data, dict) else None
        member = schema["discriminator"]["mapping"].get(tag)
        return _decide({"$ref": member}, data) if member else schema
    if "anyOf" in schema:
        return _decide(next((one for one in schema["anyOf"] if one.get("type") != "null"), {}), data)
    return schema

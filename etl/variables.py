"""The variables of pipeline files: `${NAME}` and `${NAME:-default}`.

A pipeline keeps them as they are written, so nothing that prints it shows a secret; `resolve` gives the value at the
moment of use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from pydantic import SecretStr

from errors import PivotalError, Problem
from etl.documents import Document, KeyPath
from etl.pipeline import Pipeline

_VARIABLE = re.compile(r"\$\{(?:([A-Za-z_]\w*)(?::-([^}]*))?\})?")
_BARE = re.compile(r"\$[A-Za-z_]\w*")
_ADDRESSES = ("brokers", "connection", "path", "url")
_FILLED_IN = ("source", "destination")
_OTHER_TABLE = ("references", "connection")
_FORM = "write ${NAME} or ${NAME:-default}"
_PREFIX = "PIVOTAL_"


def resolve(text: str) -> str:
    """Fills in `${NAME}` and `${NAME:-default}`.

    A name is looked up in the environment, then in `.env`. Without a value there, the default counts, and last the
    default that `settings` has for a `PIVOTAL_...` name. As in a shell, `:-` also stands in for an empty value.

    Args:
        text: A value of a pipeline's `source` or `destination`.

    Returns:
        The text with values in it; it may hold a secret, so it is not to be kept or shown.

    Raises:
        PivotalError: A variable has no value.
    """

    def value(found: re.Match[str]) -> str:
        if not found[1]:
            raise PivotalError("a `${` that starts no variable", hint=_FORM)
        if (filled := _lookup(found)) is None:
            raise PivotalError(f"the environment variable {found[1]} is not set", hint=_where_to_set(found[1]))
        return filled

    return _VARIABLE.sub(value, text)


def find_problems(document: Document) -> Iterator[Problem]:
    """Finds variables that have no value, and variables where none are filled in."""
    for path, text in document.texts():
        filled_in = path[0] in _FILLED_IN or path[-2:] == _OTHER_TABLE
        if filled_in and path[-1] in _ADDRESSES and _BARE.fullmatch(text):
            yield replace(document.problem(path, "not a variable", f"write ${{{text[1:]}}}"), text=text)
        for found in _VARIABLE.finditer(text):
            if filled_in or path[0] in Pipeline.model_fields:
                yield from _variable_problems(document, path, found, filled_in)


def _variable_problems(document: Document, path: KeyPath, found: re.Match[str], filled_in: bool) -> Iterator[Problem]:
    message, hint = "", ""
    if not found[1]:
        message, hint = "not a variable", _FORM
    elif not filled_in:
        message, hint = "a variable that is not filled in here", "variables stand under `source` and `destination` only"
    elif _lookup(found) is None:
        message, hint = "an environment variable that is not set", _where_to_set(found[1])
    if message:
        text = found[0] if found[1] else found.string[found.start() :][:20]
        yield replace(document.problem(path, message, hint, offset=found.start()), text=text)


def _lookup(found: re.Match[str]) -> str | None:
    """The value of a variable; None if it has none."""
    name, default = found[1], found[2]
    value = os.environ.get(name) if name in os.environ else _from_dotenv(name)
    if value or (value == "" and default is None):
        return value
    return default if default is not None else _from_settings(name)


def _from_dotenv(name: str) -> str | None:
    from settings import Settings

    file = Settings.model_config.get("env_file")
    if not isinstance(file, str) or not Path(file).is_file():
        return None
    from dotenv import dotenv_values

    return dotenv_values(file).get(name)


def _from_settings(name: str) -> str | None:
    from settings import Settings, get_settings

    field = name.removeprefix(_PREFIX).lower()
    if not name.startswith(_PREFIX) or field not in Settings.model_fields:
        return None
    value = getattr(get_settings(), field)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return None if value is None else str(value)


def _where_to_set(name: str) -> str:
    from settings import Settings

    hint = "set it in the environment or in .env, or give a default: ${" + name + ":-...}"
    if not name.startswith(_PREFIX):
        return hint
    close = get_close_matches(name, [_PREFIX + field.upper() for field in Settings.model_fields], 1)
    return f"did you mean `{close[0]}`? Or {hint}" if close and close[0] != name else hint

"""A YAML file as plain data, with the place of every key and value.

YAML 1.2's core schema, less what a pipeline file has no use for: `true` and `false` are the only booleans, so that
`in: [no, yes, on]` are texts; a number with a point is a `Decimal`, to the last digit; a date, and a number with a
leading zero, are texts. Keys are always texts. Anchors' aliases and tags are refused.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from errors import ConfigError, Problem

KeyPath = tuple[str | int, ...]
"""Where a value is: ("source", "columns", 0)."""

_Event = Any  # PyYAML's events have no useful types
_MAX_BYTES = 1_048_576
_MAX_DEPTH = 30
_SHOWN = 60
_UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,4000})")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,4})?")
_CONSTANTS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}
_SECRETS = {"auth", "connection", "headers"}
_SECRET_LINE = re.compile(r"((token|password|secret|key|connection|authorization|url)\b.{0,3}:).*", re.IGNORECASE)
_HINTS = {
    "mapping values are not allowed": (
        "look here and in the line above: keys of one mapping are indented alike, a colon has a space after it, and a "
        "text with ': ' in it stands in quotes"
    ),
    "cannot start any token": "put a text that starts with a special character in quotes",
    "alphabetic or numeric character": 'put a text that starts with * or & in quotes: "*"',
    "did not find expected key": "indent keys of one mapping alike; in a text in single quotes, write '' for '",
    "expected '-' indicator": "a mapping has `key: value` lines, a list `- value` lines; one cannot follow the other",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "unexpected end of stream": "close the quotes",
    "expected ',' or": "close the brackets, put commas between the values, and write '' for ' in single quotes",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key or a value is.

    Args:
        line: Its first line, from 1.
        column: Its first column, from 1.
        text: What it says; empty for mappings and lists.
        inside: How many columns further its text starts (1 if it stands in quotes); None if the text does not stand
            in the file as it is (escapes, several lines).
    """

    line: int
    column: int
    text: str = ""
    inside: int | None = None


@dataclass(slots=True)
class Document:
    """A file that was read.

    Args:
        file: The file's path, as the user would type it.
        data: What it says.
        values: Where each value is.
        keys: Where each key is.
        problems: Mistakes that do not keep the rest from being read: keys given twice.
    """

    file: str
    data: dict[str, object] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False, offset: int = 0) -> Problem:
        """A mistake at a value, or at its key; what the file does not have is shown where it should be.

        Args:
            path: The value's path.
            message: What is wrong.
            hint: How to mend it.
            at_key: Point at the key instead of the value.
            offset: Where in the value's text, in characters from 0.
        """
        places = self.keys if at_key and path in self.keys else self.values
        if path not in places:
            parent = next(path[:end] for end in range(len(path), -1, -1) if path[:end] in self.values)
            return Problem(self.file, self.values[parent].line, self.values[parent].column, message, "", hint)
        place = places[path]
        column = place.column + (offset + place.inside if offset and place.inside is not None else 0)
        text = "" if _holds_secret(path) and not at_key else _cut(place.text)
        return Problem(self.file, place.line, column, message, text, hint)

    def texts(self) -> Iterator[tuple[KeyPath, str]]:
        """Every text among the values."""
        yield from _texts((), self.data)


def read(path: Path, file: str) -> Document:
    """Reads a file.

    Args:
        path: The file.
        file: Its path as the user would type it.

    Raises:
        ConfigError: It cannot be read, or is no YAML mapping.
    """
    text = _decode(_bytes(path, file), file)
    return _Composer(file, text).document()


# --- from bytes to text ---------------------------------------------------------------------------------------


def _bytes(path: Path, file: str) -> bytes:
    try:
        if path.is_dir():
            raise _fatal(file, "a folder, not a file")
        with path.open("rb") as opened:
            raw = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _fatal(file, f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(raw) > _MAX_BYTES:
        raise _fatal(
            file, "larger than 1 MiB: not a pipeline file", hint="move data out of it, into files that a source reads"
        )
    return raw


def _decode(raw: bytes, file: str) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _fatal(file, "UTF-16 text", hint="save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before, byte = raw[: error.start].decode("utf-8-sig", errors="ignore"), f"0x{raw[error.start]:02x}"
        if b"\0" in raw:
            raise _fatal(file, "a binary file, not YAML", before, byte, _NOT_YAML) from None
        raise _fatal(file, "not UTF-8 text", before, byte, "save it as UTF-8") from None
    if bad := _UNPRINTABLE.search(text):
        before = text[: bad.start()]
        if "\0" in text:
            raise _fatal(file, "a binary file, not YAML", before, bad[0], _NOT_YAML)
        raise _fatal(file, "a control character", before, bad[0], "remove it")
    return text


_A_PIPELINE = "a pipeline has `description`, `source` and `destination`"
_NOT_YAML = "pipelines are YAML text files; move it out of the folder, or give it another suffix"


def _fatal(file: str, message: str, before: str = "", text: str = "", hint: str = "") -> ConfigError:
    """A mistake after which nothing more can be said about the file; `before` is the text up to it."""
    lines = _lines(before)
    return ConfigError([Problem(file, len(lines), len(lines[-1]) + 1, message, text, hint)])


# --- from text to data ----------------------------------------------------------------------------------------


class _Composer:
    """Makes data from the parser's events: PyYAML's own composer overflows the C stack on deep nesting."""

    def __init__(self, file: str, text: str) -> None:
        self._document = Document(file)
        self._file, self._text = file, text
        self._loader = yaml.CSafeLoader(text)

    def document(self) -> Document:
        try:
            self._compose()
        except yaml.MarkedYAMLError as error:
            raise self._syntax_error(error) from None
        return self._document

    def _compose(self) -> None:
        self._next()  # the stream's start
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise _fatal(self._file, "the file is empty", hint=_A_PIPELINE)
        event = self._next()
        if not isinstance(event, yaml.MappingStartEvent):
            raise self._not_a_mapping(event)
        self._document.data = self._mapping(event, ())
        self._next()  # the document's end
        if not isinstance(event := self._next(), yaml.StreamEndEvent):
            raise self._refuse(
                event, "a second document", "one pipeline a file: move what follows into a file of its own"
            )

    def _next(self) -> _Event:
        return self._loader.get_event()

    def _value(self, event: _Event, path: KeyPath) -> object:
        if isinstance(event, yaml.AliasEvent):
            raise self._refuse(event, "an alias", "write the value out; a text that starts with * goes in quotes")
        if event.tag is not None:
            raise self._refuse(event, "a tag", "write the value alone; a text that starts with ! goes in quotes")
        if len(path) > _MAX_DEPTH:
            raise self._refuse(event, f"nested deeper than {_MAX_DEPTH} levels", "")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, path)
        if "\0" in event.value:
            raise self._refuse(event, "a NUL character", "remove it")
        self._document.values[path] = self._place(event)
        return _scalar(event)

    def _mapping(self, start: _Event, path: KeyPath) -> dict[str, object]:
        self._document.values[path] = self._place(start)
        data: dict[str, object] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or "\0" in event.value:
                raise self._refuse(
                    event, "a key that is no text", "write `key: value`; put a text with brackets in quotes"
                )
            self._key(event, data, (*path, event.value))
            data[event.value] = self._value(self._next(), (*path, event.value))
        return data

    def _key(self, event: _Event, data: dict[str, object], path: KeyPath) -> None:
        if event.value in data:
            first = self._document.keys[path]
            message = f"a key that is given twice, first in line {first.line}"
            self._document.problems += self._refuse(event, message, "keep one of the two").problems
        self._document.keys[path] = self._place(event)

    def _sequence(self, start: _Event, path: KeyPath) -> list[object]:
        self._document.values[path] = self._place(start)
        data: list[object] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            data.append(self._value(event, (*path, len(data))))
        return data

    def _place(self, event: _Event) -> Place:
        start, end = event.start_mark, event.end_mark
        if not isinstance(event, yaml.ScalarEvent):
            return Place(start.line + 1, start.column + 1)
        raw, style = self._text[start.index : end.index], event.style or ""
        inside = len(style) if raw == f"{style}{event.value}{style}" else None
        return Place(start.line + 1, start.column + 1, event.value, inside)

    # --- what goes wrong

    def _not_a_mapping(self, event: _Event) -> ConfigError:
        if isinstance(event, yaml.ScalarEvent) and not event.value:
            return _fatal(self._file, "the file is empty", hint=_A_PIPELINE)
        what, hint = "a text", "write `key: value` lines, with a space after the colon"
        if isinstance(event, yaml.SequenceStartEvent):
            what, hint = "a list", "write keys at the top: `description: ...`, `source: ...`, without `-`"
        return self._refuse(event, f"the file is {what}, not a mapping", hint)

    def _refuse(self, event: _Event, message: str, hint: str) -> ConfigError:
        mark = event.start_mark
        shown = self._text[mark.index : event.end_mark.index].split("\n")[0]
        return ConfigError([Problem(self._file, mark.line + 1, mark.column + 1, message, _cut(shown), hint)])

    def _syntax_error(self, error: yaml.MarkedYAMLError) -> ConfigError:
        if blank := re.search(r"^ *([\t\xa0])", self._text, re.MULTILINE):
            what = "a tab" if blank[1] == "\t" else "a no-break space"
            before = self._text[: blank.start(1)]
            return _fatal(self._file, f"{what} in the indentation", before, blank[1], "indent with spaces")
        mark: Any = error.problem_mark
        problem = error.problem or "no reason given"
        hint = next((hint for part, hint in _HINTS.items() if part in problem), "")
        line = "".join(_lines(self._text)[mark.line : mark.line + 1])
        shown = re.sub(_SECRET_LINE, r"\1 ...", line.strip())
        return ConfigError(
            [Problem(self._file, mark.line + 1, mark.column + 1, f"not YAML: {problem}", _cut(shown), hint)]
        )


def _scalar(event: _Event) -> object:
    text: str = event.value
    if event.style:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return Decimal(text)
    return text


def _texts(path: KeyPath, value: object) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts((*path, key), part)


def _lines(text: str) -> list[str]:
    """The text's lines, as YAML counts them."""
    return re.split("\r\n|[\r\n\x85\u2028\u2029]", text)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _holds_secret(path: KeyPath) -> bool:
    """Whether a value may be a secret that somebody wrote into the file: it is not shown."""
    return not _SECRETS.isdisjoint(path)

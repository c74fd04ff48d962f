"""`convert` with its options: how the file says that texts are written, as SQL. Exact, or broken, as all conversions.

- A format is strptime's. %d, %m, %H, %I, %M and %S take one digit or two, two where another number follows or comes
  before without a sign between them; %Y has four digits; %b and %B are English; %z is +02, +0200 or +02:00.
- `timezone` gives an instant to a text or a timestamp without an offset. A local time that the zone skips, or has
  twice, is no instant.
- `decimal` and `thousands` are the signs in a number; groups have three digits, and all of them or none are marked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from etl.checks import Value
from etl.convert import conversion, described, engine_type, looks_like, trimmed
from etl.pipeline import Conversion
from etl.quoting import literal

INSTANT = "TIMESTAMP WITH TIME ZONE"

_PARTS = {
    "Y": r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})",
    "y": r"\d\d",
    "b": "[A-Za-z]{3}",
    "B": "[A-Za-z]+",
    "f": r"\d{1,6}",
    "p": "[AaPp][Mm]",
    "z": r"[+-](0\d|1[0-5])(:?[0-5]\d)?",
    "%": "%",
}
_NUMBERS = "dmyYHIMSf"


@dataclass(frozen=True, slots=True)
class Reading:
    """A conversion, as SQL.

    Args:
        value: The converted value; NULL if it does not convert.
        casts: Columns that it needs below it: name -> SQL.
    """

    value: str
    casts: dict[str, str] = field(default_factory=dict)


def reading(read: Value, target: Conversion, number: int) -> Reading:
    """How a value is converted.

    Args:
        read: The value as it was read.
        target: What the file says.
        number: The rule's; columns that the conversion needs have it in their names.

    Raises:
        NoConversionError: No value of the type can convert.
    """
    kind, cast = engine_type(target.type), f"c{number}"
    if read.type == "VARCHAR" and target.format:
        return _formatted(read.sql, kind, target, number)
    if target.timezone and read.type in {"VARCHAR", "DATE", "TIMESTAMP"}:
        return _placed(read, target.timezone, number)
    if read.type == "VARCHAR" and (target.decimal or target.thousands):
        text = f"t{number}"
        casts = {text: _plain_number(read.sql, target), cast: f"TRY_CAST({text} AS {kind})"}
        return Reading(conversion(text, read.type, kind, cast), casts)
    return Reading(conversion(read.sql, read.type, kind, cast), {cast: f"TRY_CAST({read.sql} AS {kind})"})


def wanted(target: Conversion) -> str:
    """What a conversion makes, in words."""
    what = described(engine_type(target.type))
    if target.format:
        what = f"a {target.type} written {' or '.join(target.format)}"
    elif target.decimal or target.thousands:
        signs = [f"the decimal sign {target.decimal!r}"] if target.decimal else []
        signs += [f"groups of thousands by {target.thousands!r}"] if target.thousands else []
        what += f", with {' and '.join(signs)}"
    return f"{what}, or a local time that {target.timezone} has once" if target.timezone else what


def _formatted(text: str, kind: str, target: Conversion, number: int) -> Reading:
    with_offset = [form for form in target.format or () if "%z" in form.replace("%%", "")]
    without = [form for form in target.format or () if form not in with_offset]
    if kind != INSTANT:
        return Reading(f"CAST({_parsed(text, without)} AS {kind})")
    local, instant = f"l{number}", f"c{number}"
    casts = {local: _parsed(text, without, "TIMESTAMP"), instant: _parsed(text, with_offset, INSTANT)}
    return Reading(f"coalesce({instant}, instant_of({local}, {literal(target.timezone or 'UTC')}))", casts)


def _parsed(text: str, forms: Sequence[str], kind: str = "TIMESTAMP") -> str:
    """One format after the other; the engine's own list of formats mixes up their offsets."""
    cases = [
        f"WHEN {looks_like(text, _pattern(form))} THEN try_strptime({trimmed(text)}, {literal(form)})" for form in forms
    ]
    return f"coalesce({', '.join(f'CASE {case} END' for case in cases)})" if cases else f"CAST(NULL AS {kind})"


def _pattern(form: str) -> str:
    parts = re.findall(r"%-?.|[^%]+", form)
    names = [part[-1] if part.startswith("%") and part != "%%" else "" for part in parts]
    pattern = ""
    for before, name, after, part in zip(["", *names], names, [*names[1:], ""], parts, strict=False):
        touches = any(each and each in _NUMBERS for each in (before, after))
        digits = r"\d\d" if touches and not part.startswith("%-") else r"\d{1,2}"
        pattern += _PARTS.get(name, digits) if name else re.escape("%" if part == "%%" else part)
    return pattern


def _placed(read: Value, zone: str, number: int) -> Reading:
    """Instants from texts with an offset, and from local times without one."""
    local = f"l{number}"
    casts = {local: conversion(read.sql, read.type, "TIMESTAMP")}
    value = f"instant_of({local}, {literal(zone)})"
    if read.type == "VARCHAR":
        casts[f"c{number}"] = f"TRY_CAST({read.sql} AS {INSTANT})"
        value = f"coalesce({value}, {conversion(read.sql, read.type, INSTANT, f'c{number}')})"
    return Reading(value, casts)


def _plain_number(text: str, target: Conversion) -> str:
    """A number as other texts write it; NULL if the signs in it are not those, or not where they belong."""
    decimal, thousands = target.decimal or ".", target.thousands
    point, fraction = re.escape(decimal), rf"({re.escape(decimal)}\d*)?"
    pattern, plain = rf"[+-]?(\d+{fraction}|{point}\d+)([eE][+-]?\d+)?", trimmed(text)
    if thousands:
        pattern += rf"|[+-]?\d{{1,3}}({re.escape(thousands)}\d{{3}})+{fraction}"
        plain = f"replace({plain}, {literal(thousands)}, '')"
    return f"CASE WHEN {looks_like(text, pattern)} THEN replace({plain}, {literal(decimal)}, '.') END"

r"""Conversions, as SQL: exact, or broken. A value that would change is never rounded, cut or made NULL.

`integer` and `bigint` are the same: whole numbers of 64 bits. `number` is a double, `decimal(p,s)` is exact.
From text (blanks around a value do not count; an empty text is no value of any type but string):

- integer, bigint, decimal: digits with an optional sign and point, no exponent, no separators. `1.20` is a
  decimal(18,1), `1.239` is no decimal(18,2), `2.0` is an integer.
- number: as above, or with an exponent; the nearest double. What a double cannot tell from its neighbours is broken:
  beyond 2^53 - 1 without an exponent, and beyond the largest double.
- boolean: true/false, t/f, yes/no, y/n, on/off, 1/0, in any case.
- date, timestamp, timestamptz: ISO 8601, the years 0001 to 9999: `2024-05-01`, `2024-05-01 12:00`,
  `2024-05-01T12:00:00.123456`. A timestamp has no offset, a timestamptz must have one: `Z`, `+02`, `+02:00`, `+0200`.
- json: RFC 8259, no key twice. uuid: 8-4-4-4-12 hexadecimal digits.

Between other types a value converts if converting it back gives the same value: 2.0 -> 2, 1 -> true, a timestamp at
midnight -> date. A double becomes the decimal that it is written as: 0.1 -> 0.10. Nested values become json only.
"""

from __future__ import annotations

import re

from etl.quoting import literal

INTEGERS = {
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
}  # fmt: skip
_FLOATS = {"FLOAT", "DOUBLE"}
_LOCAL = {"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}
_INSTANT = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"}

_ENGINE_TYPES = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "bigint": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "json": "JSON",
    "uuid": "UUID",
}
_DESCRIPTIONS = {
    "VARCHAR": "text",
    "BIGINT": "an integer of 64 bits",
    "DOUBLE": "a number that a double holds",
    "BOOLEAN": "a boolean (true/false, yes/no, t/f, y/n, on/off, 1/0)",
    "DATE": "a date (2024-05-01)",
    "TIMESTAMP": "a timestamp without offset (2024-05-01T12:00:00; for one with an offset use timestamptz)",
    "TIMESTAMP WITH TIME ZONE": "a timestamp with an offset (2024-05-01T12:00:00+02:00)",
    "JSON": "JSON with each key once",
    "UUID": "a UUID",
}

_BLANKS = " \t\r\n"
_YEAR = r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})"
_DATE = _YEAR + r"-\d\d-\d\d"
_TIME = r"([01]\d|2[0-3]):\d\d(:\d\d(\.\d{1,6}0*)?)?"
_OFFSET = r"(Z|[+-](0\d|1[0-5])(:?[0-5]\d)?)"
_PATTERNS = {
    "DOUBLE": r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?",
    "DATE": _DATE,
    "TIMESTAMP": f"{_DATE}([ T]{_TIME})?",
    "TIMESTAMP WITH TIME ZONE": f"{_DATE}[ T]{_TIME}{_OFFSET}",
    "UUID": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}
_SAFE = 2**53 - 1
"""Integers up to here have a double each of their own."""


class NoConversionError(Exception):
    """No value of the one type could become a value of the other."""


def engine_type(target: str) -> str:
    """What DuckDB calls a type of `convert`.

    Raises:
        NoConversionError: It is a decimal that no decimal can be.
    """
    if not target.startswith("decimal"):
        return _ENGINE_TYPES[target]
    precision, scale = decimal_parts(target)
    if not 1 <= precision <= 38 or scale > precision:
        raise NoConversionError("a decimal has 1 to 38 digits, and not more of them after the point")
    return f"DECIMAL({precision},{scale})"


def decimal_parts(kind: str) -> tuple[int, int]:
    """Precision and scale of `decimal(p,s)`."""
    precision, scale = re.findall(r"\d+", kind)
    return int(precision), int(scale)


def described(kind: str) -> str:
    """A type in words: "... is not <an integer of 64 bits>"."""
    if not kind.startswith("DECIMAL"):
        return _DESCRIPTIONS[kind]
    precision, scale = decimal_parts(kind)
    return f"a decimal of at most {precision - scale} digits before the point and {scale} after it"


def conversion(value: str, source: str, kind: str, cast: str = "") -> str:
    """A value in another type, as SQL; NULL if the value is, or if it does not convert exactly.

    Args:
        value: The value, as SQL; a name, or something as cheap (it is used several times).
        source: Its type, as DuckDB calls it.
        kind: The type to have, as `engine_type` gives it.
        cast: A column that has TRY_CAST(value AS kind), to save the engine doing it several times.

    Raises:
        NoConversionError: No value of the type `source` can convert.
    """
    cast = cast or f"TRY_CAST({value} AS {kind})"
    if source == kind:
        return value
    if source == '"NULL"':
        return f"CAST({value} AS {kind})"
    if source == "VARCHAR":
        return _from_text(value, kind, cast)
    if kind == "VARCHAR":
        return _to_text(value, source)
    if kind == "JSON" and is_nested(source):
        return f"CASE WHEN {value} IS NOT NULL THEN to_json({value}) END"
    if not _related(source, kind):
        raise NoConversionError(f"the column is a {source}, which cannot become {described(kind)}")
    return _from_related(value, source, kind, cast)


def is_nested(kind: str) -> bool:
    """Whether values of a type have parts."""
    return kind.endswith("]") or kind.startswith(("STRUCT", "MAP"))


def is_numeric(kind: str) -> bool:
    """Whether values of a type are numbers."""
    return kind in INTEGERS or kind in _FLOATS or kind.startswith("DECIMAL")


def _related(source: str, kind: str) -> bool:
    numeric = all(is_numeric(each) or each == "BOOLEAN" for each in (source, kind))
    return numeric or {source, kind} <= _LOCAL or {source, kind} <= _INSTANT


def _to_text(value: str, source: str) -> str:
    if source == "BLOB":
        return f"TRY(decode({value}))"
    if is_nested(source):
        raise NoConversionError("the column has nested values, which become json, not text")
    return f"CAST({value} AS VARCHAR)"


def _from_related(value: str, source: str, kind: str, cast: str) -> str:
    if kind == "DOUBLE":
        return _to_double(value, source)
    if source == "BOOLEAN" and kind.startswith("DECIMAL"):  # the engine takes true for the smallest decimal
        return conversion(f"CAST({value} AS BIGINT)", "BIGINT", kind)
    if source in _FLOATS and kind.startswith("DECIMAL"):
        return _float_to_decimal(value, source, kind)
    return f"CASE WHEN TRY_CAST({cast} AS {source}) = {value} THEN {cast} END"


def _float_to_decimal(value: str, source: str, kind: str) -> str:
    precision, scale = decimal_parts(kind)
    # With an exponent, the engine does not hold the text against the precision (so `abs`), but the digits before its
    # point (so the wide decimal in between).
    result = f"TRY_CAST(TRY_CAST(CAST({value} AS VARCHAR) AS DECIMAL(38,{min(scale, 37)})) AS {kind})"
    back = f"TRY_CAST(CAST({result} AS VARCHAR) AS {source})"
    return f"CASE WHEN abs({value}) < 1e{precision - scale} AND {back} = {value} THEN {result} END"


def _to_double(value: str, source: str) -> str:
    if source in {"FLOAT", "BOOLEAN"}:
        return f"CAST({value} AS DOUBLE)"
    result = f"CAST(CAST({value} AS VARCHAR) AS DOUBLE)" if source not in INTEGERS else f"CAST({value} AS DOUBLE)"
    return f"CASE WHEN {result} BETWEEN -{_SAFE} AND {_SAFE} THEN {result} END"


# --- from text ------------------------------------------------------------------------------------------------


def _from_text(text: str, kind: str, cast: str) -> str:
    if kind == "BOOLEAN":
        return _boolean(text)
    if kind == "JSON":
        return f"CASE WHEN strict_json({text}) THEN {cast} END"
    if kind == "DOUBLE":
        return _double(text, cast)
    # The engine's casts are lenient (1_000, 0x1f, 24:00, rounding), so a text must look right, too. One that the
    # engine would itself write for the value does; telling that is cheaper than a regular expression.
    same = f"CAST({cast} AS VARCHAR) = {text}"
    if kind in _LOCAL | _INSTANT:  # not infinity, nor before Christ
        same += f" AND {cast} BETWEEN CAST('0001-01-01' AS {kind}) AND CAST('9999-12-31' AS {kind})"
    without_blanks = f"TRY_CAST({trimmed(text)} AS {kind})"
    return f"CASE WHEN {same} THEN {cast} WHEN {looks_like(text, _pattern(kind))} THEN {without_blanks} END"


def _pattern(kind: str) -> str:
    if kind != "BIGINT" and not kind.startswith("DECIMAL"):
        return _PATTERNS[kind]
    scale = 0 if kind == "BIGINT" else decimal_parts(kind)[1]
    return rf"[+-]?(\d+(\.\d{{0,{scale}}}0*)?|\.\d{{0,{scale}}}0*)"


def _double(text: str, cast: str) -> str:
    return (
        f"CASE WHEN {looks_like(text, _PATTERNS['DOUBLE'])} AND ({cast} BETWEEN -{_SAFE} AND {_SAFE} "
        f"OR (isfinite({cast}) AND regexp_matches({text}, '[eE]'))) THEN {cast} END"
    )


def _boolean(text: str) -> str:
    word = f"lower({trimmed(text)})"
    return (
        f"CASE WHEN {word} IN ('true', 't', 'yes', 'y', 'on', '1') THEN true "
        f"WHEN {word} IN ('false', 'f', 'no', 'n', 'off', '0') THEN false END"
    )


def looks_like(text: str, pattern: str) -> str:
    """SQL: whether the whole text matches, but for the blanks around it."""
    return f"regexp_full_match({text}, {literal(f'[{_BLANKS}]*({pattern})[{_BLANKS}]*')})"


def trimmed(text: str) -> str:
    """SQL: the text without the blanks around it."""
    return f"trim({text}, {literal(_BLANKS)})"

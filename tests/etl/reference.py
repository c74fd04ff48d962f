"""The rules once more, row by row in plain Python: what the compiled ones are measured against.

Knows nothing of the engine: numbers are `decimal`, times `datetime`. A row is a dict, after `map`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

Row = Mapping[str, Any]

_BLANKS = " \t\r\n"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_EXPONENT = re.compile(_NUMBER.pattern + r"[eE][+-]?\d+", re.ASCII)
_DAY = r"(\d{4})-(\d\d)-(\d\d)"
_CLOCK = r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?"
_OFFSET = r"(?:(Z)|([+-])(\d\d)(?::?(\d\d))?)"
_TRUE, _FALSE = {"true", "t", "yes", "y", "on", "1"}, {"false", "f", "no", "n", "off", "0"}


class BrokenValueError(Exception):
    """A value that does not convert."""


# --- convert --------------------------------------------------------------------------------------------------


def convert(value: Any, target: str) -> Any:
    """A value in another type, exactly.

    Raises:
        BrokenValueError: It does not convert.
    """
    if value is None:
        return None
    name = target.partition("(")[0]
    result = (_FROM_TEXT if isinstance(value, str) else _FROM_VALUE)[name](value, target)
    if result is None:
        raise BrokenValueError(value)
    return result


def _number(text: str) -> Decimal | None:
    text = text.strip(_BLANKS)
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _whole(number: Decimal | None) -> int | None:
    return int(number) if number is not None and number == int(number) and -(2**63) <= number < 2**63 else None


def _scaled(number: Decimal | None, target: str) -> Decimal | None:
    precision, scale = (int(part) for part in re.findall(r"\d+", target))
    if number is None:
        return None
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    units = int("".join(map(str, digits))) * 10 ** max(0, exponent + scale)
    if exponent + scale < 0:
        units, lost = divmod(units, 10 ** -(exponent + scale))
        if lost:
            return None
    if units >= 10**precision:
        return None
    return Decimal((sign if units else 0, tuple(map(int, str(units))), -scale))


def _double(text: str) -> float | None:
    text = text.strip(_BLANKS)
    if _EXPONENT.fullmatch(text):
        return value if math.isfinite(value := float(text)) else None
    return value if _NUMBER.fullmatch(text) and abs(value := float(text)) < 2**53 else None


def _boolean(text: str) -> bool | None:
    word = text.strip(_BLANKS).lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _day(parts: Sequence[str]) -> date | None:
    try:
        return date(*map(int, parts))
    except ValueError:
        return None


def _clock(parts: Sequence[str | None]) -> time | None:
    hour, minute, second, fraction = parts
    if fraction and fraction[6:].strip("0"):
        return None
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    try:
        return time(int(hour or 0), int(minute or 0), int(second or 0), micros)
    except ValueError:
        return None


def _date(text: str) -> date | None:
    match = re.fullmatch(_DAY, text.strip(_BLANKS), re.ASCII)
    return _day(match.groups()) if match else None


def _timestamp(text: str) -> datetime | None:
    match = re.fullmatch(f"{_DAY}(?:[ T]{_CLOCK})?", text.strip(_BLANKS), re.ASCII)
    if not match or not (day := _day(match.groups()[:3])) or (clock := _clock(match.groups()[3:])) is None:
        return None
    return datetime.combine(day, clock)


def _timestamptz(text: str) -> datetime | None:
    match = re.fullmatch(f"{_DAY}[ T]{_CLOCK}{_OFFSET}", text.strip(_BLANKS), re.ASCII)
    if not match or not (day := _day(match.groups()[:3])) or (clock := _clock(match.groups()[3:7])) is None:
        return None
    utc, sign, hours, minutes = match.groups()[7:]
    offset = timedelta() if utc else timedelta(hours=int(hours), minutes=int(minutes or 0))
    if offset >= timedelta(hours=16) or int(minutes or 0) > 59:
        return None
    zone = timezone(-offset if sign == "-" else offset)
    return datetime.combine(day, clock, zone).astimezone(UTC)


def _json(text: str) -> str | None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    def no(_: str) -> None:
        raise ValueError

    try:
        json.loads(text, object_pairs_hook=once, parse_constant=no)
    except ValueError:
        return None
    return text


def _uuid(text: str) -> UUID | None:
    text = text.strip(_BLANKS)
    return UUID(text) if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text) else None


_FROM_TEXT: dict[str, Callable[[str, str], Any]] = {
    "string": lambda text, _: text,
    "integer": lambda text, _: _whole(_number(text)),
    "bigint": lambda text, _: _whole(_number(text)),
    "decimal": lambda text, target: _scaled(_number(text), target),
    "number": lambda text, _: _double(text),
    "boolean": lambda text, _: _boolean(text),
    "date": lambda text, _: _date(text),
    "timestamp": lambda text, _: _timestamp(text),
    "timestamptz": lambda text, _: _timestamptz(text),
    "json": lambda text, _: _json(text),
    "uuid": lambda text, _: _uuid(text),
}


def _finite(value: Any) -> Decimal | None:
    return Decimal(value) if math.isfinite(value) else None


def _written(value: Any) -> Decimal | None:
    """A double stands for the decimal that it is written as."""
    return Decimal(repr(value)) if isinstance(value, float) and math.isfinite(value) else _finite(value)


def _truth(value: Any) -> bool | None:
    return True if value == 1 else False if value == 0 else None


def _to_double(value: Any, _: str) -> float | None:
    return value if isinstance(value, float) else float(value) if abs(float(value)) < 2**53 else None


def _to_text(value: Any, _: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        text = value.strftime(f"{value.year:04}-%m-%d %H:%M:%S")
        text += f".{value.microsecond:06}".rstrip("0") if value.microsecond else ""
        return text + "+00" if value.tzinfo else text
    return str(value)


def _to_day(value: Any, _: str) -> date | None:
    if not isinstance(value, datetime):
        return value  # type: ignore[no-any-return]
    return value.date() if value.time() == time() else None


def _to_timestamp(value: Any, _: str) -> datetime:
    return value if isinstance(value, datetime) else datetime.combine(value, time())


_FROM_VALUE: dict[str, Callable[[Any, str], Any]] = {
    "string": _to_text,
    "integer": lambda value, _: _whole(_finite(value)),
    "bigint": lambda value, _: _whole(_finite(value)),
    "decimal": lambda value, target: _scaled(_written(value), target),
    "number": _to_double,
    "boolean": lambda value, _: _truth(value),
    "date": _to_day,
    "timestamp": _to_timestamp,
    "timestamptz": lambda value, _: value,
    "uuid": lambda value, _: value,
}


_DIGITS = {"Y": 4, "y": 2}


def written_as(text: str, form: str) -> datetime | None:
    """What a text means in one of strptime's formats; years have four digits, numbers that touch have two."""
    text = text.strip(_BLANKS)
    parts = re.findall(r"%.|[^%]+", form)
    pattern = ""
    for place, part in enumerate(parts):
        touches = any(0 <= each < len(parts) and parts[each][0] == "%" for each in (place - 1, place + 1))
        name = part[1:] if part[0] == "%" else ""
        digits = f"[0-9]{{{_DIGITS.get(name, 2)}}}" if touches or name in _DIGITS else "[0-9]{1,2}"
        digits = "[0-9]{1,6}" if name == "f" else digits
        pattern += re.escape(part) if not name else "[A-Za-z]+" if name in "bBp" else digits
    try:
        return datetime.strptime(text, form) if re.fullmatch(pattern, text) else None  # noqa: DTZ007
    except ValueError:
        return None


def instant(local: datetime, zone: str) -> datetime | None:
    """The one instant at which clocks in a zone show a time."""
    there = ZoneInfo(zone)
    found = {local.replace(tzinfo=there, fold=fold).astimezone(UTC) for fold in (0, 1)}
    shown = [each for each in found if each.astimezone(there).replace(tzinfo=None) == local]
    return shown[0] if len(shown) == 1 else None


# --- validate -------------------------------------------------------------------------------------------------


def checks(value: Any, checks: Mapping[str, Any]) -> list[str]:
    """The checks that a value breaks, but for `unique`, as they stand in the file."""
    if value is None:
        return ["required"] if checks.get("required") else []
    broken = [f"type: {checks['type']}"] if "type" in checks and not _is_of(value, checks["type"]) else []
    return broken + [
        f"{name}: {_flow(bound)}"
        for name, bound in checks.items()
        if name in _CHECKS and not _CHECKS[name](value, bound)
    ]


def _is_of(value: Any, target: str) -> bool:
    try:
        convert(value, target)
    except BrokenValueError:
        return False
    return True


def _flow(bound: Any) -> str:
    if isinstance(bound, list):
        return f"[{', '.join(map(_flow, bound))}]"
    return str(bound).lower() if isinstance(bound, bool) else str(bound)


def _order(value: Any) -> Any:
    """NaN is greater than every number, as in SQL."""
    return (value != value, 0 if value != value else value)  # noqa: PLR0124


_CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "min": lambda value, bound: _order(value) >= _order(bound),
    "max": lambda value, bound: _order(value) <= _order(bound),
    "min_length": lambda value, bound: len(value) >= bound,
    "max_length": lambda value, bound: len(value) <= bound,
    "pattern": lambda value, bound: bool(re.fullmatch(bound, value)),
    "in": lambda value, bound: value in bound,
    "not_in": lambda value, bound: value not in bound,
}


# --- a run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expression:
    """An expression, as SQL and as Python; `compute` raises ArithmeticError or ValueError where the SQL fails."""

    sql: str
    compute: Callable[[Row], Any]


@dataclass
class Outcome:
    """What a run over rows gives."""

    good: list[dict[str, Any]] = field(default_factory=list)
    bad: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)
    filtered: int = 0


def run(
    rows: Sequence[Row],
    conversions: Mapping[str, str],
    validations: Mapping[str, Mapping[str, Any]],
    expectations: Sequence[Expression],
    derived: Mapping[str, Expression],
    predicates: Sequence[Expression],
) -> Outcome:
    """Runs the rules over rows that `map` has been applied to."""
    outcome = Outcome()
    taken: dict[str, set[Any]] = {name: set() for name, each in validations.items() if each.get("unique")}
    for number, read in enumerate(rows):
        row, broken = _judged(read, conversions, validations)
        for each in expectations:
            rule = ("", f"expect: {each.sql}")
            if _computed(each, row, broken, rule) is False:
                broken.append(rule)
        keys = {name: _key(row[name]) for name in taken if row[name] is not None}
        stays = _extended(row, broken, derived, predicates)
        duplicates = [(name, "unique") for name, key in keys.items() if key in taken[name]]
        if broken or duplicates:
            outcome.bad.append((number, broken + duplicates))
            continue
        for name, key in keys.items():
            taken[name].add(key)
        if stays:
            outcome.good.append(row)
        else:
            outcome.filtered += 1
    return outcome


def _judged(
    read: Row, conversions: Mapping[str, str], validations: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    row, broken = dict(read), []
    for name, target in conversions.items():
        try:
            row[name] = convert(read[name], target)
        except BrokenValueError:
            row[name] = None
            broken.append((name, f"convert: {target}"))
    unconverted = {name for name, _ in broken}
    for name, each in validations.items():
        if name not in unconverted:
            broken += [(name, rule) for rule in checks(row[name], each)]
    return row, broken


def _extended(
    row: dict[str, Any],
    broken: list[tuple[str, str]],
    derived: Mapping[str, Expression],
    predicates: Sequence[Expression],
) -> bool:
    for name, expression in derived.items():
        row[name] = _computed(expression, row, broken, (name, f"derive: {name}"))
    answers = [_computed(each, row, broken, ("", f"filter: {each.sql}")) for each in predicates]
    return all(answer is True for answer in answers)


def _computed(expression: Expression, row: Row, broken: list[tuple[str, str]], rule: tuple[str, str]) -> Any:
    try:
        return expression.compute(row)
    except (ArithmeticError, ValueError):
        broken.append(rule)
        return None


def _key(value: Any) -> Any:
    """Equal values are one: 0.0 and -0.0 are, NaN is one value."""
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def bigint(value: int) -> int:
    """A BIGINT.

    Raises:
        OverflowError: It has no room for the value.
    """
    if not -(2**63) <= value < 2**63:
        raise OverflowError
    return value

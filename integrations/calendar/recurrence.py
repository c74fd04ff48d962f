"""RFC 5545's recurrence rules and Microsoft Graph's patterns, each made of the other, or refused."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

from integrations.calendar.model import Draft, NotExpressibleError, zone_of
from integrations.calendar.zones import windows_zone

SERVICE = "outlook"

_DAYS = {
    "MO": "monday",
    "TU": "tuesday",
    "WE": "wednesday",
    "TH": "thursday",
    "FR": "friday",
    "SA": "saturday",
    "SU": "sunday",
}
_CODES = {name: code for code, name in _DAYS.items()}
_WEEKDAYS = [*_DAYS]
_INDEXES = {"1": "first", "2": "second", "3": "third", "4": "fourth", "-1": "last"}
_NUMBERS = {name: number for number, name in _INDEXES.items()}
_WHAT_IT_CAN = "one RRULE, by days, weeks, months or years, on a day of the month or on the n-th weekday of it"
_SHORTEST, _A_COMMON_YEAR = 28, 2025
_KNOWN = {"FREQ", "INTERVAL", "COUNT", "UNTIL", "BYDAY", "BYMONTHDAY", "BYMONTH", "BYSETPOS", "WKST"}


def pattern_of(draft: Draft) -> dict[str, Any] | None:
    """Graph's `patternedRecurrence` of a draft; None if it does not recur.

    Raises:
        NotExpressibleError: Graph has no words for it.
    """
    if not draft.recurrence:
        return None
    if len(draft.recurrence) > 1 or not draft.recurrence[0].startswith("RRULE:"):
        raise _not(f"a recurrence of {[line.partition(':')[0].partition(';')[0] for line in draft.recurrence]}")
    rule = _parts(draft.recurrence[0])
    if strange := rule.keys() - _KNOWN:
        raise _not(f"{', '.join(sorted(strange))} in a recurrence")
    pattern = {"interval": _number(rule, "INTERVAL", 1, 999), **_pattern(rule, draft)}
    if "WKST" in rule:
        pattern["firstDayOfWeek"] = _day(rule["WKST"])
    return {"pattern": pattern, "range": _range(rule, draft)}


def rule_of(recurrence: Mapping[str, Any] | None, start: date, zone: tzinfo) -> tuple[str, ...]:
    """RFC 5545's line of Graph's `patternedRecurrence`.

    Args:
        recurrence: What Graph tells.
        start: When the first one starts.
        zone: The zone that the end of the recurrence is in.
    """
    if not recurrence:
        return ()
    pattern, ends = recurrence["pattern"], recurrence["range"]
    parts = {"FREQ": pattern["type"].removeprefix("absolute").removeprefix("relative").upper()}
    if pattern["interval"] != 1:
        parts["INTERVAL"] = str(pattern["interval"])
    parts |= _days_of(pattern)
    if pattern.get("firstDayOfWeek", "sunday") != "sunday" and pattern["type"] == "weekly":
        parts["WKST"] = _CODES[pattern["firstDayOfWeek"]]
    if ends["type"] == "numbered":
        parts["COUNT"] = str(ends["numberOfOccurrences"])
    elif ends["type"] == "endDate":
        parts["UNTIL"] = _until_of(date.fromisoformat(ends["endDate"]), start, zone)
    return ("RRULE:" + ";".join(f"{name}={value}" for name, value in parts.items()),)


# --- RFC 5545 -> Graph --------------------------------------------------------------------------------------------


def _parts(line: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in line.removeprefix("RRULE:").upper().split(";")]
    return {name: value for name, _, value in pairs}


def _pattern(rule: Mapping[str, str], draft: Draft) -> dict[str, Any]:
    makers = {"DAILY": _daily, "WEEKLY": _weekly, "MONTHLY": _monthly, "YEARLY": _yearly}
    make = makers.get(rule.get("FREQ", ""))
    if make is None:
        raise _not(f"FREQ={rule.get('FREQ', '')} in a recurrence")
    return make(rule, draft)


def _daily(rule: Mapping[str, str], _: Draft) -> dict[str, Any]:
    _only(rule, set())
    return {"type": "daily"}


def _weekly(rule: Mapping[str, str], draft: Draft) -> dict[str, Any]:
    _only(rule, {"BYDAY"})
    days = rule.get("BYDAY", _WEEKDAYS[draft.start.weekday()]).split(",")
    return {"type": "weekly", "daysOfWeek": [_day(day) for day in days]}


def _monthly(rule: Mapping[str, str], draft: Draft) -> dict[str, Any]:
    if "BYDAY" in rule:
        _only(rule, {"BYDAY", "BYSETPOS"})
        return {"type": "relativeMonthly", **_nth(rule)}
    _only(rule, {"BYMONTHDAY"})
    return {"type": "absoluteMonthly", "dayOfMonth": _day_of_month(rule, draft, _SHORTEST)}


def _yearly(rule: Mapping[str, str], draft: Draft) -> dict[str, Any]:
    number = _number(rule, "BYMONTH", draft.start.month, 12)
    month = {"month": number}
    if "BYDAY" in rule:
        _only(rule, {"BYDAY", "BYSETPOS", "BYMONTH"})
        if "BYMONTH" not in rule:
            raise _not("the n-th weekday of a year in a recurrence")
        return {"type": "relativeYearly", **month, **_nth(rule)}
    _only(rule, {"BYMONTHDAY", "BYMONTH"})
    return {"type": "absoluteYearly", **month, "dayOfMonth": _day_of_month(rule, draft, _days_in(number))}


def _day_of_month(rule: Mapping[str, str], draft: Draft, shortest: int) -> int:
    """RFC 5545 leaves out the months that have no such day; Outlook takes their last one."""
    if rule.get("BYMONTHDAY") == "-1":
        return 31
    day = _number(rule, "BYMONTHDAY", draft.start.day, 31)
    if day > shortest:
        raise _not(f"the {day}. only of the months that have one in a recurrence (BYMONTHDAY=-1 is the last day)")
    return day


def _days_in(month: int) -> int:
    return monthrange(_A_COMMON_YEAR, month)[1]


def _nth(rule: Mapping[str, str]) -> dict[str, Any]:
    """`2MO`, or `MO,TU` with BYSETPOS=2: in both, the second one."""
    days, at = rule["BYDAY"].split(","), rule.get("BYSETPOS")
    if at is None and len(days) == 1:
        at, days = days[0][:-2].removeprefix("+"), [days[0][-2:]]
    if at not in _INDEXES:
        raise _not(f"BYDAY={rule['BYDAY']} in a recurrence by months or years")
    return {"index": _INDEXES[at], "daysOfWeek": [_day(day) for day in days]}


def _day(code: str) -> str:
    if code not in _DAYS:
        raise _not(f"BYDAY={code} in a recurrence")
    return _DAYS[code]


def _number(rule: Mapping[str, str], name: str, usual: int, highest: int) -> int:
    value = rule.get(name, str(usual))
    if not value.isdigit() or not 1 <= int(value) <= highest:
        raise _not(f"{name}={value} in a recurrence")
    return int(value)


def _only(rule: Mapping[str, str], names: set[str]) -> None:
    if strange := {name for name in rule if name.startswith("BY")} - names:
        raise _not(f"{', '.join(sorted(strange))} with FREQ={rule['FREQ']} in a recurrence")


def _range(rule: Mapping[str, str], draft: Draft) -> dict[str, Any]:
    first = draft.start.date() if isinstance(draft.start, datetime) else draft.start
    zone = zone_of(draft.start) or "UTC"
    about = {"startDate": first.isoformat(), "recurrenceTimeZone": windows_zone(zone) or zone}
    if "COUNT" in rule:
        return {"type": "numbered", "numberOfOccurrences": _number(rule, "COUNT", 1, 999), **about}
    if "UNTIL" in rule:
        try:
            return {"type": "endDate", "endDate": _last_day(rule["UNTIL"], draft).isoformat(), **about}
        except ValueError:
            raise _not(f"UNTIL={rule['UNTIL']} in a recurrence") from None
    return {"type": "noEnd", **about}


def _last_day(until: str, draft: Draft) -> date:
    """The last day that one may start on: RFC 5545's end is a moment, Graph's a day."""
    if len(until) == 8 or not isinstance(draft.start, datetime):
        return datetime.strptime(until[:8], "%Y%m%d").replace(tzinfo=UTC).date()
    moment = datetime.strptime(until.removesuffix("Z"), "%Y%m%dT%H%M%S")  # noqa: DTZ007  (its zone follows)
    zone = UTC if until.endswith("Z") else draft.start.tzinfo
    local = moment.replace(tzinfo=zone).astimezone(draft.start.tzinfo)
    return local.date() if local.time() >= draft.start.time() else local.date() - timedelta(days=1)


def _not(what: str) -> NotExpressibleError:
    return NotExpressibleError(SERVICE, what, hint=f"Outlook knows {_WHAT_IT_CAN}")


# --- Graph -> RFC 5545 --------------------------------------------------------------------------------------------


def _days_of(pattern: Mapping[str, Any]) -> dict[str, str]:
    kind, days = pattern["type"], ",".join(_CODES[day] for day in pattern.get("daysOfWeek") or [])
    month = {"BYMONTH": str(pattern["month"])} if kind.endswith("Yearly") else {}
    if kind.startswith("absolute"):
        shortest = _days_in(pattern["month"]) if month else _SHORTEST
        return {**month, **_month_day(pattern["dayOfMonth"], shortest)}
    if kind.startswith("relative"):
        number = _NUMBERS[pattern.get("index", "first")]
        return {**month, **({"BYDAY": days, "BYSETPOS": number} if "," in days else {"BYDAY": number + days})}
    return {"BYDAY": days} if kind == "weekly" else {}


def _month_day(day: int, shortest: int) -> dict[str, str]:
    if day <= shortest:
        return {"BYMONTHDAY": str(day)}
    if day == 31:
        return {"BYMONTHDAY": "-1"}
    return {"BYMONTHDAY": ",".join(map(str, range(shortest, day + 1))), "BYSETPOS": "-1"}


def _until_of(last: date, start: date, zone: tzinfo) -> str:
    """RFC 5545 wants the end of what has a zone in UTC."""
    if not isinstance(start, datetime):
        return f"{last:%Y%m%d}"
    return f"{datetime.combine(last, start.time(), zone).astimezone(UTC):%Y%m%dT%H%M%SZ}"

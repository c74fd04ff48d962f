"""Time zones by their two names: IANA's, which everybody uses, and Windows', which Microsoft does (Unicode CLDR)."""

from __future__ import annotations

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tzlocal.windows_tz import tz_win, win_tz


def windows_zone(name: str) -> str | None:
    """Windows' name of a zone that IANA calls `name`; None if it has none. Several IANA zones share one."""
    return tz_win.get(name)


def zone(name: str) -> tzinfo | None:
    """The zone of a name, whoever's it is; None for one that nobody knows (Exchange lets people invent some)."""
    if name in {"UTC", "Etc/UTC"}:
        return UTC
    try:
        return ZoneInfo(win_tz.get(name, name))
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder of zones
        return None

"""How calendars fail, whoever keeps them."""

from __future__ import annotations

from typing import Any

from errors import IntegrationError


class CalendarIntegrationError(IntegrationError):
    """A calendar service refused a call or could not be reached; `service` says which one."""


class CalendarConflictError(CalendarIntegrationError):
    """What was to be changed has been changed by somebody else since it was read; nothing was done."""


_CHANGED = "read it again, and decide anew: somebody has changed it in the meantime"


def conflict(error: CalendarIntegrationError, hint: str = _CHANGED) -> CalendarConflictError:
    """A refusal that is a conflict."""
    about: dict[str, Any] = {name: getattr(error, name) for name in ("service", "operation", "status", "request_id")}
    return CalendarConflictError(error.message, code="conflict", hint=hint, **about)

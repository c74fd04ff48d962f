"""One schedule per provider that there are credentials for: what its webhooks have missed is read."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.reconciliation import reconciliation_jobs

EVERY = "*/15 * * * *"
"""How long a lost webhook stays unknown, at most; watches of calendars are renewed days before they end."""


def build_reconciliation_schedules(providers: Sequence[str]) -> list[dg.ScheduleDefinition]:
    """Makes a schedule, which starts by itself, for each provider.

    Args:
        providers: Those with credentials: without them, each run would fail.
    """
    return [
        dg.ScheduleDefinition(
            name=f"reconcile_{provider}_schedule",
            job=reconciliation_jobs[provider],
            cron_schedule=EVERY,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Reads what {provider}'s webhooks may have missed.",
        )
        for provider in providers
    ]

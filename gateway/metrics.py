"""What the receiver does, for Prometheus: in the registry that `integrations.metrics` uses, too.

- `pivotal_webhooks_total`: requests by `provider` and `status`; what is refused before that is known has none;
- `pivotal_log_commit_seconds`: commits of the event log, its count is their number;
- `pivotal_log_waiting_events`: events that wait for a commit, in memory, unacknowledged;
- `pivotal_log_head`: the event log's last sequence; NaN while it cannot be read.
"""

from __future__ import annotations

import math
import threading
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_making = threading.Lock()


@cache
def answered(provider: str, status: int) -> Counter:
    """Counts the answers with this status to this provider.

    Args:
        provider: Its name; empty if it is not known.
        status: HTTP status.
    """
    return _metered().answers.labels(provider, status)


def committed(seconds: float) -> None:
    """Counts a commit of the event log."""
    _metered().commits.observe(seconds)


def exposition(waiting: int, head: int | None) -> tuple[bytes, str]:
    """All metrics of this process, and their media type.

    Args:
        waiting: Events that wait for a commit.
        head: The event log's last sequence; None if it cannot be read.
    """
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    meters = _metered()
    meters.waiting.set(waiting)
    meters.head.set(math.nan if head is None else head)
    return generate_latest(), CONTENT_TYPE_LATEST


def _metered() -> _Meters:
    with _making:  # a cache alone would let two threads make them, which the registry refuses
        return _meters()


class _Meters(NamedTuple):
    answers: Counter
    commits: Histogram
    waiting: Gauge
    head: Gauge


@cache
def _meters() -> _Meters:
    from prometheus_client import Counter, Gauge, Histogram  # a tenth of a second that an import need not take

    return _Meters(
        Counter("pivotal_webhooks", "Webhooks by provider and answer.", ("provider", "status")),
        Histogram("pivotal_log_commit_seconds", "Commits of the event log, in seconds.", buckets=_BUCKETS),
        Gauge("pivotal_log_waiting_events", "Events that wait for a commit."),
        Gauge("pivotal_log_head", "The event log's last sequence."),
    )

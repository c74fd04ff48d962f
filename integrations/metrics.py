"""What calls to outside services cost, for Prometheus: by service and operation, in prometheus_client's own registry.

- `pivotal_call_seconds`: every try on the wire, its count is the number of calls;
- `pivotal_call_errors_total`: tries that failed, by `error`: the HTTP status, or why there was none;
- `pivotal_call_retries_total`: tries beyond a call's first;
- `pivotal_circuit_state`: the service's circuit breaker: 0 closed, 1 half open, 2 open.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

State = Literal["closed", "half_open", "open"]

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_making = threading.Lock()
_LEVELS: dict[State, int] = {"closed": 0, "half_open": 1, "open": 2}


def tried(service: str, operation: str, seconds: float, *, again: bool, error: str | None) -> None:
    """Counts one try.

    Args:
        service: The service's name.
        operation: What was asked of it; one of a few: no ids.
        seconds: How long it took.
        again: Whether it was not the call's first.
        error: The HTTP status, or why there was none; None if it went well.
    """
    meters = _metered()
    meters.seconds.labels(service, operation).observe(seconds)
    if again:
        meters.retries.labels(service, operation).inc()
    if error is not None:
        meters.errors.labels(service, operation, error).inc()


def circuit(service: str, state: State) -> None:
    """Shows where a service's circuit breaker stands."""
    _metered().circuit.labels(service).set(_LEVELS[state])


def _metered() -> _Meters:
    with _making:  # a cache alone would let two threads make them, which the registry refuses
        return _meters()


class _Meters(NamedTuple):
    seconds: Histogram
    retries: Counter
    errors: Counter
    circuit: Gauge


@cache
def _meters() -> _Meters:
    from prometheus_client import Counter, Gauge, Histogram  # a tenth of a second that an import need not take

    of = ("service", "operation")
    return _Meters(
        Histogram("pivotal_call_seconds", "Tries on the wire, in seconds.", of, buckets=_BUCKETS),
        Counter("pivotal_call_retries", "Tries beyond a call's first.", of),
        Counter("pivotal_call_errors", "Tries that failed.", (*of, "error")),
        Gauge("pivotal_circuit_state", "Circuit breaker: 0 closed, 1 half open, 2 open.", ("service",)),
    )

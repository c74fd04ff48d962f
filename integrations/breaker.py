"""A circuit breaker: a service that is in trouble is not asked any more until a probe shows that it is well again.

closed --`failures` in a row--> open --after `open_for`--> half open: one probe at a time
   ^                              ^                           |
   +--------- it works -----------+------- it fails ----------+
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from integrations.metrics import State

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a service counts as being in trouble.

    Args:
        failures: Tries in a row without a sensible answer that open the circuit.
        open_for: Seconds that the service is left alone before it is probed.

    Raises:
        ValueError: `failures` is below 1, or `open_for` below 0.
    """

    failures: int = 8
    open_for: float = 30.0

    def __post_init__(self) -> None:
        if self.failures < 1 or self.open_for < 0:
            raise ValueError(f"{self}: at least one failure, and no seconds below 0")


USUAL_BREAKER = BreakerPolicy()


class CircuitOpenError(Exception):
    """The service is not to be asked now.

    Args:
        wait: Seconds until it may be.
    """

    def __init__(self, wait: float) -> None:
        super().__init__(wait)
        self.wait = wait


class Breaker:
    """The circuit breaker of one service. Threads and tasks share it.

    Args:
        service: The service's name.
        policy: When it opens, and for how long.
        on_change: Told of every new state.
    """

    def __init__(self, service: str, policy: BreakerPolicy, on_change: Callable[[State], None]) -> None:
        self._service, self._policy, self._on_change = service, policy, on_change
        self._lock = threading.Lock()
        self._failures = 0
        self._probing = False
        self._until = 0.0
        self.state: State = "closed"

    def admit(self) -> bool:
        """Asks for one call.

        Returns:
            Whether it is the probe, which has a single try.

        Raises:
            CircuitOpenError: The service is to be left alone.
        """
        with self._lock:
            if self.state == "closed":
                return False
            wait = self._until - time.monotonic()
            if wait > 0 or self._probing:
                raise CircuitOpenError(max(wait, 1.0))
            self._probing = True
            self._move("half_open")
            return True

    def settle(self, well: bool | None, *, probe: bool) -> None:
        """Tells how a try ended.

        Args:
            well: Whether the service is well; None if the try does not tell.
            probe: Whether it was the probe.
        """
        with self._lock:
            if probe:
                self._probing = False
            elif self.state != "closed":
                return  # a call that began before the circuit opened: it says nothing new
            if well:
                self._failures = 0
                self._move("closed")
            elif well is False:
                self._failures += 1
                if probe or self._failures >= self._policy.failures:
                    self._until = time.monotonic() + self._policy.open_for
                    self._move("open")

    def _move(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        level = logging.WARNING if state == "open" else logging.INFO
        _log.log(level, "%s: circuit %s", self._service, state, extra={"service": self._service, "circuit": state})
        self._on_change(state)

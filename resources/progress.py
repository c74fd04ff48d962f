"""How a running pipeline is watched: a resource, so that whoever starts a run can bring their own."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etl.stream import Progress, RunReport


class RunProgress:
    """Writes the counts so far into the run's log.

    Args:
        every: Seconds between two lines, at least.
    """

    def __init__(self, every: float = 5.0) -> None:
        self._every = every

    def watch(self, log: logging.Logger) -> Progress:
        """The callback for one run.

        Args:
            log: The run's logger.
        """
        last = time.monotonic()

        def tell(report: RunReport) -> None:
            nonlocal last
            if time.monotonic() - last >= self._every:
                last = time.monotonic()
                log.info(f"{report.pipeline}: {report.extracted:,} rows read, {report.quarantined:,} quarantined")  # noqa: G004

        return tell

"""One process, from its start to its end: seconds, processor seconds, peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Measured:
    """What a process took.

    Args:
        seconds: From its start to its end.
        processor: Seconds of the processor, its own and the system's for it (not the database server's).
        peak: Its largest resident memory, in bytes.
    """

    seconds: float
    processor: float
    peak: int


def measure(command: Sequence[str | Path], environment: Mapping[str, str]) -> Measured:
    """Runs a command to its end.

    Raises:
        SystemExit: It failed; its output is shown.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{output.decode(errors='replace')[-4000:]}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

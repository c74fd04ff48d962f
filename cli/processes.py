"""Child processes that end together: for `pivotal dev` and `pivotal demo`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from errors import PivotalError

GRACE = 10.0
"""Seconds that a child has to end by itself before it is killed."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running child process, what it is called, and its last lines."""

    name: str
    process: subprocess.Popen[str]
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=8))


class Children:
    """Starts processes, and ends every one of them, with what they started, when the block is left.

    Each child leads a process group of its own, so that its own children are reached, too.

    Args:
        output: Takes each line that a child prints: (the child's name, the line).
    """

    def __init__(self, output: Callable[[str, str], None]) -> None:
        self._output = output
        self._children: list[Child] = []
        self._pumps: list[threading.Thread] = []

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> Child:
        """Starts a child.

        Args:
            name: What it is called in its output and in errors.
            command: Program and arguments.
            environment: Variables beside those of this process.
        """
        process = subprocess.Popen(  # noqa: S603  (our own commands)
            [str(part) for part in command],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        child = Child(name, process)
        self._children.append(child)
        pump = threading.Thread(target=self._pump, args=(child,), daemon=True)
        self._pumps.append(pump)
        pump.start()
        return child

    def wait_until_listening(self, child: Child, port: int, timeout: float = 30.0) -> None:
        """Waits until a child takes connections.

        Args:
            child: The child.
            port: Its port on this machine.
            timeout: Seconds to wait at most.

        Raises:
            PivotalError: It ended, or did not listen in time; its last lines are in the message.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and child.process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(0.2)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise PivotalError(f"{child.name} did not start on port {port}; it said last:\n" + "\n".join(child.tail))

    def wait(self) -> None:
        """Waits until a child ends or this process is interrupted (Ctrl-C, SIGTERM).

        Raises:
            PivotalError: A child ended by itself.
            KeyboardInterrupt: Somebody ended this process.
        """
        while True:
            self.check()
            time.sleep(0.2)

    def check(self) -> None:
        """Looks whether all children run.

        Raises:
            PivotalError: One ended by itself; its last lines are in the message.
        """
        for child in self._children:
            if (code := child.process.poll()) is not None:
                raise PivotalError(f"{child.name} ended with exit code {code}; it said last:\n" + "\n".join(child.tail))

    def stop(self) -> None:
        """Asks all to end, waits, and kills what is left."""
        for child in self._children:
            _signal_group(child, signal.SIGINT)
        deadline = time.monotonic() + GRACE
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            _signal_group(child, signal.SIGKILL)
            child.process.wait()
        for pump in self._pumps:
            pump.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _pump(self, child: Child) -> None:
        with cast("IO[str]", child.process.stdout) as lines:
            for line in lines:
                child.tail.append(line.rstrip())
                self._output(child.name, line.rstrip())


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _signal_group(child: Child, number: int) -> None:
    """Signals the child's whole group, also where the child has ended and left some of it behind."""
    with suppress(ProcessLookupError):
        os.killpg(child.process.pid, number)

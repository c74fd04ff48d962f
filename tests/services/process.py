"""A server process that belongs to a test session: on a free port, ready before use, ended with the session."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class ServerProcess:
    """A server that can be stopped, killed and started again on the same port and data.

    Args:
        command: The program and its arguments.
        ready: Tells whether the server answers; it is polled, and may raise `OSError` for "not yet".
        log: File that takes the server's output.
        stop_signal: Signal that ends the server cleanly.
        user: User that the server runs as, where this process may choose (root).
        env: Environment of the server; this process's if not given.
        patience: Seconds that a start or a clean stop may take.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        log: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        patience: float = 60.0,
    ) -> None:
        self._command = [*_dies_with_its_parent(stop_signal), *command]
        self._ready = ready
        self._log = log
        self._stop_signal = stop_signal
        self._user = user
        self._env = env
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process's id; None if it does not run."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Starts the server and waits until it answers; does nothing if it runs.

        Raises:
            RuntimeError: It ended, or did not answer in time; the message has the end of its log.
        """
        if not self.running:
            self.launch()
            self.await_answer()

    def launch(self) -> None:
        """Starts the server, and lets it come up by itself."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests; they end the server
                env=self._env,
                user=self._user,
            )

    def await_answer(self) -> None:
        """Waits until the server answers that was launched.

        Raises:
            RuntimeError: See `start`.
        """
        deadline = time.monotonic() + self._patience
        while not self._answers():
            if not self.running:
                raise RuntimeError(f"{self._command} ended while it started:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._command} did not answer in {self._patience:.0f} s:\n{self._log_tail()}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals | None = None) -> None:
        """Ends the server, cleanly if no other signal is given, and waits for its end."""
        self._end(how or self._stop_signal)

    def kill(self) -> None:
        """Ends the server at once (SIGKILL), as a crash would."""
        self._end(signal.SIGKILL)

    def _answers(self) -> bool:
        try:
            return self._ready()
        except OSError:
            return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


@contextmanager
def data_folder(service: str) -> Iterator[Path]:
    """A folder for a server's data, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"pivotal-{service}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _dies_with_its_parent(how: signal.Signals) -> list[str]:
    """On Linux the kernel ends the server even if the tests are killed with -9."""
    if sys.platform != "linux" or not (setpriv := shutil.which("setpriv")):
        return []
    return [setpriv, "--pdeathsig", how.name.removeprefix("SIG")]


def alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and was not waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False

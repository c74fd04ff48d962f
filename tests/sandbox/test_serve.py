"""The sandbox as a process and as a thread: it starts, it says why not, and it ends when told."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from errors import PivotalError
from sandbox.app import Sandbox
from sandbox.serve import run, running

PROGRAM = (
    "import sys; from sandbox.app import Sandbox; from sandbox.serve import run; run('127.0.0.1', {port}, Sandbox())"
)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_that_is_taken_is_said_so_to_who_serves_from_a_thread(taken: int) -> None:
    with pytest.raises(PivotalError, match=f"cannot listen on 127.0.0.1:{taken}"), running(port=taken):
        pytest.fail("it listens")


def test_a_port_that_is_taken_is_said_so_to_who_serves_from_a_process(taken: int) -> None:
    with pytest.raises(PivotalError, match=f"cannot listen on 127.0.0.1:{taken}"):
        run("127.0.0.1", taken, Sandbox())


def test_an_interrupted_process_ends_at_once_and_cleanly_whatever_is_on_its_way(
    until: Callable[[Callable[[], bool]], None],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM.format(port=port)], stderr=subprocess.PIPE, text=True)

    def answers() -> bool:
        try:
            return http.get("/_sandbox/calls").status_code == 200
        except httpx.ConnectError:
            return False

    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            until(answers)
            http.post("/_sandbox/webhooks", json={"service": "stripe", "url": "http://127.0.0.1:9"})
            headers = {"Authorization": "Bearer sk_test_of_the_tests"}
            assert http.post("/stripe/v1/customers", headers=headers).status_code == 200
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, told) == (0, "")

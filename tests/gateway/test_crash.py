"""The receiver as a process of its own, under load, when it is killed, stopped, or its disk is full."""

from __future__ import annotations

import http.client
import os
import random
import re
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from events.sqlite import SqliteEventLog
from tests.gateway.signing import (
    SECRETS,
    body_of,
    sendgrid_event,
    sendgrid_headers,
    stripe_event,
    stripe_headers,
)

ROUNDS = int(os.environ.get("PIVOTAL_CRASH_RUNS", "5"))
CONNECTIONS = 16


@dataclass(frozen=True)
class Child:
    """`pivotal gateway` as a process."""

    process: subprocess.Popen[bytes]
    port: int


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Child]]:
    """Starts `pivotal gateway`; all use one log."""
    environment = os.environ | SECRETS
    environment |= {"PIVOTAL_EVENTS_URL": f"sqlite:///{tmp_path}/events.db", "PIVOTAL_GATEWAY_PORT": "0"}

    def started() -> Child:
        lines = tmp_path / "lines"
        with lines.open("wb") as stderr:
            command: list[str | Path] = [Path(sys.executable).parent / "pivotal", "gateway"]
            process = stack.enter_context(ended(subprocess.Popen(command, env=environment, stderr=stderr)))
        while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", lines.read_text())):
            assert process.poll() is None, lines.read_text()
            time.sleep(0.02)
        return Child(process, int(found[1]))

    with ExitStack() as stack:
        yield started


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass
class Load:
    """Senders that post until the receiver is gone, and remember what it acknowledged."""

    port: int
    acknowledged: list[str] = field(default_factory=list)
    other_answers: list[int] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._send, args=(number,)) for number in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        while len(self.acknowledged) < count:
            time.sleep(0.001)

    def _send(self, number: int) -> None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
                while True:
                    self._post(connection, number)
        except (OSError, http.client.HTTPException):
            return  # the receiver is gone

    def _post(self, connection: http.client.HTTPConnection, number: int) -> None:
        if number % 4:
            told = [stripe_event()]
            path, body = "/webhooks/stripe", body_of(told[0])
            headers = stripe_headers(body)
        else:
            told = [sendgrid_event() for _ in range(3)]
            path, body = "/webhooks/sendgrid", body_of(told)
            headers = sendgrid_headers(body)
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            self.acknowledged += [str(one.get("sg_event_id", one.get("id"))) for one in told]
        else:
            self.other_answers.append(answer.status)


def keys(path: Path) -> Counter[str]:
    with closing(SqliteEventLog(path)) as log:
        return Counter(recorded.event.metadata.dedupe_key for recorded in log.read(0, 10**9))


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_killed_under_load_what_was_acknowledged_is_on_the_log_exactly_once(
    start: Callable[[], Child], tmp_path: Path
) -> None:
    acknowledged: list[str] = []
    for _ in range(ROUNDS):
        child = start()
        load = Load(child.port)
        with load.running():
            load.wait_for(random.randint(20, 300))
            child.process.kill()
        assert load.other_answers == []
        acknowledged += load.acknowledged

        stored = keys(tmp_path / "events.db")
        assert set(acknowledged) <= set(stored)
        assert set(stored.values()) == {1}


def test_stopped_under_load_it_answers_what_it_took_and_ends(start: Callable[[], Child], tmp_path: Path) -> None:
    child = start()
    load = Load(child.port)
    with load.running():
        load.wait_for(100)
        child.process.terminate()

    assert child.process.wait() == 0
    assert load.other_answers == []
    stored = keys(tmp_path / "events.db")
    assert set(load.acknowledged) <= set(stored)
    assert set(stored.values()) == {1}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="prlimit (Linux) is missing: no disk can be made full")
def test_a_full_disk_is_503_until_there_is_space(start: Callable[[], Child], tmp_path: Path) -> None:
    child = start()
    body = body_of(stripe_event(filler="x" * 200_000))

    def post() -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{child.port}/webhooks/stripe", content=body, headers=stripe_headers(body), timeout=30
        )

    _, hard = resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    full = post()
    resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    again = post()

    assert (full.status_code, full.headers["retry-after"]) == (503, "5")
    assert (again.status_code, again.json()) == (200, {"received": 1, "new": 1})
    assert len(keys(tmp_path / "events.db")) == 1


def test_a_taken_port_is_told_without_a_traceback(start: Callable[[], Child], tmp_path: Path) -> None:
    child = start()
    environment = os.environ | {"PIVOTAL_EVENTS_URL": f"sqlite:///{tmp_path}/events.db"}

    second = subprocess.run(
        [Path(sys.executable).parent / "pivotal", "gateway", "--port", str(child.port)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert second.returncode == 1
    assert "address already in use" in second.stderr
    assert f"Error: the gateway cannot listen on 127.0.0.1:{child.port}" in second.stderr
    assert "Traceback" not in second.stderr


def test_the_receiver_starts_without_the_heavy_sdks() -> None:
    code = (
        "import sys, gateway.serve; print(sorted({'stripe', 'sendgrid', 'cryptography', 'dagster'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"

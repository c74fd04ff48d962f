"""The receiver as a process of its own, under load, when it is killed, stopped, or its disk is full."""

from __future__ import annotations

import http.client
import os
import random
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from events.log import open_log
from events.sqlite import SqliteEventLog
from tests.gateway.conftest import serving
from tests.gateway.signing import (
    SECRETS,
    body_of,
    sendgrid_event,
    sendgrid_headers,
    stripe_event,
    stripe_headers,
)
from tests.services.process import ServerProcess

ROUNDS = int(os.environ.get("PIVOTAL_CRASH_RUNS", "3"))
"""How often the receiver is killed, and stopped."""
ABSENCES = int(os.environ.get("PIVOTAL_CRASH_RUNS", "1"))
"""How often PostgreSQL is killed, and restarted."""
CONNECTIONS = 16
Start = Callable[..., "Child"]


@dataclass(frozen=True)
class Child:
    """`pivotal gateway` as a process."""

    process: subprocess.Popen[bytes]
    port: int


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The event log of most tests."""
    return f"sqlite:///{tmp_path}/events.db"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `pivotal gateway` over an event log."""

    def started(url: str) -> Child:
        environment = os.environ | SECRETS | {"PIVOTAL_EVENTS_URL": url, "PIVOTAL_GATEWAY_PORT": "0"}
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
    """Senders that post until the receiver is gone or they are told to end, and remember what it answered."""

    port: int
    acknowledged: list[str] = field(default_factory=list)
    """Ids that heard 2xx: each is made once."""
    other_answers: list[tuple[int, str | None]] = field(default_factory=list)
    """Status and Retry-After."""
    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._send, args=(number,)) for number in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        try:
            yield
        except BaseException:
            self.over.set()
            raise
        finally:
            for thread in threads:
                thread.join()

    def wait_for(self, count: int) -> None:
        """Until so many more ids were acknowledged."""
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal)

    def wait_for_refusals(self, count: int = 1) -> None:
        wait_until(lambda: len(self.other_answers) >= count)

    def _send(self, number: int) -> None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
                while not self.over.is_set():
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
            self.other_answers.append((answer.status, answer.headers["Retry-After"]))
            self.over.wait(0.01)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_all_are_there_once(acknowledged: list[str], url: str) -> None:
    with closing(open_log(url)) as log:
        stored = Counter(recorded.event.metadata.dedupe_key for recorded in log.read(0, 10**9))
    assert set(acknowledged) <= set(stored)
    assert set(stored.values()) == {1}


def tell(what: str, acknowledged: list[str]) -> None:
    """The figure, for `pytest -rP`."""
    sys.stdout.write(f"{what}: {len(set(acknowledged))} distinct ids were acknowledged\n")


def assert_only_asked_to_come_back(load: Load) -> None:
    assert set(load.other_answers) == {(503, "5")}


@pytest.mark.timeout(120 + 10 * ROUNDS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_ended_under_load_what_was_acknowledged_is_on_the_log_exactly_once(
    start: Start, url: str, how: signal.Signals
) -> None:
    acknowledged: list[str] = []
    for _ in range(ROUNDS):
        child = start(url)
        load = Load(child.port)
        with load.running():
            load.wait_for(random.randint(20, 300))
            child.process.send_signal(how)

        assert child.process.wait() == (-how if how == signal.SIGKILL else 0)
        assert load.other_answers == []
        acknowledged += load.acknowledged
        assert_all_are_there_once(acknowledged, url)
    tell(f"{how.name} {ROUNDS} times", acknowledged)


def test_a_log_that_another_process_holds_is_503_until_it_is_let_go(tmp_path: Path, url: str) -> None:
    with closing(SqliteEventLog(tmp_path / "events.db", busy_timeout=0.1)) as log, serving(log, {}) as gateway:
        load = Load(gateway.port)
        with load.running():
            load.wait_for(50)
            with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                load.wait_for_refusals(CONNECTIONS)
                other.execute("ROLLBACK")
            load.wait_for(50)
            load.over.set()

    assert_only_asked_to_come_back(load)
    assert_all_are_there_once(load.acknowledged, url)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs needs root on Linux: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_fills_up_under_load_is_503_until_there_is_space(start: Start, small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/events.db"
    child = start(url)
    load = Load(child.port)
    with load.running():
        load.wait_for(50)
        with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        load.wait_for_refusals(CONNECTIONS)
        (small_disk / "filler").unlink()
        load.wait_for(50)
        load.over.set()

    assert_only_asked_to_come_back(load)
    assert_all_are_there_once(load.acknowledged, url)


def assert_absences_are_503(
    start: Start, url: str, server: ServerProcess, end: Callable[[ServerProcess], None]
) -> None:
    """What keeps the log goes away under load, and comes back."""
    child = start(url)
    load = Load(child.port)
    with load.running():
        for _ in range(ABSENCES):
            load.wait_for(random.randint(20, 300))
            refused = len(load.other_answers)
            end(server)
            load.wait_for_refusals(refused + 1)
            server.start()
        load.wait_for(50)
        load.over.set()

    assert_only_asked_to_come_back(load)
    assert_all_are_there_once(load.acknowledged, url)
    tell(f"{url.partition(':')[0]} {end.__name__} {ABSENCES} times", load.acknowledged)


@pytest.mark.timeout(120 + 10 * ABSENCES)
@pytest.mark.parametrize("end", [ServerProcess.stop, ServerProcess.kill], ids=["restarted", "killed"])
def test_postgresql_that_goes_away_under_load_is_503_until_it_is_back(
    start: Start, postgres_url: str, postgres_process: ServerProcess, end: Callable[[ServerProcess], None]
) -> None:
    assert_absences_are_503(start, postgres_url, postgres_process, end)


@pytest.mark.timeout(120 + 20 * ABSENCES)
def test_kafka_that_goes_away_under_load_is_503_until_it_is_back(
    start: Start, kafka_brokers: str, kafka_process: ServerProcess, project: Path
) -> None:
    url = f"kafka://{kafka_brokers}/{project.name}.{uuid.uuid4().hex}?timeout=2"
    assert_absences_are_503(start, url, kafka_process, ServerProcess.kill)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="prlimit (Linux) is missing: no disk can be made full")
def test_a_full_disk_is_503_until_there_is_space(start: Start, url: str) -> None:
    child = start(url)
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
    with closing(open_log(url)) as log:
        assert log.head() == 1


def test_a_taken_port_is_told_without_a_traceback(start: Start, url: str) -> None:
    child = start(url)
    environment = os.environ | {"PIVOTAL_EVENTS_URL": url}

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

"""How fast the receiver is, beside a bare app that does the same verification and the same group commit.

64 connections send Stripe events of 2 KB, signed, as fast as they are answered; then at half of that rate. The server
is one process, the sender another: this module is run as either.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

from benchmarks.report import Finding
from settings import Settings

CONNECTIONS = 64
SIZE = 2048
SECRET = "whsec_benchmark"
WARM_UP, SECONDS = 0.5, 4.0
ROUNDS = 5
BACKLOG = 1_000_000


class Load(NamedTuple):
    """What one run came to.

    Args:
        rate: Requests a second that were answered with 200.
        p99: Milliseconds that all but one in a hundred took at most, from when they were due.
        processor: Microseconds of the server's processor a request.
    """

    rate: float
    p99: float
    processor: float


def findings() -> list[Finding]:
    """Floor, receiver, the same in front of a million events, and the same at half of its rate, in turn."""
    floor, free, full, half = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="pivotal-bench-") as name:
        folder = Path(name)
        fill(folder / "full.db", BACKLOG)
        for number in range(ROUNDS):
            floor.append(run("floor", folder / f"floor{number}.db"))
            free.append(run("receiver", folder / f"free{number}.db"))
            full.append(run("receiver", folder / "full.db"))
            half.append(run("receiver", folder / f"half{number}.db", rate=free[-1].rate / 2))
    to_floor, to_free, p99 = _ratio(free, floor), _ratio(full, free), median(load.p99 for load in half)
    rate, floor_rate = (median(load.rate for load in loads) for loads in (free, floor))
    return [
        Finding(
            "Receiver, beside the floor", f"{rate:.0f}/s, {floor_rate:.0f}/s: {to_floor:.2f}", ">= 0.8", to_floor >= 0.8
        ),
        Finding("Receiver, p99 at half of its rate", f"{p99:.0f} ms", "<= 100 ms", p99 <= 100),
        Finding(
            "Receiver, a million events in the log", f"{to_free:.2f} of the rate without", ">= 0.9", to_free >= 0.9
        ),
    ]


def _ratio(these: Sequence[Load], those: Sequence[Load]) -> float:
    """The median of the ratios of runs that followed each other: other work on the machine touches both."""
    return median(this.rate / that.rate for this, that in zip(these, those, strict=True))


def run(app: str, database: Path, *, rate: float = 0.0, seconds: float = SECONDS) -> Load:
    """One server and one sender.

    Args:
        app: `floor` or `receiver`.
        database: Where it keeps what it was sent.
        rate: Requests a second; as many as are answered if it is 0.
        seconds: How long.
    """
    with _child("serve", app, str(database)) as (server, line):
        _sent(line, 0.0, WARM_UP)
        before = _processor(server.pid)
        told = _sent(line, rate, seconds)
        processor = _processor(server.pid) - before
    return Load(told["rate"], told["p99"], processor / told["requests"] * 1e6)


def _sent(port: str, rate: float, seconds: float) -> dict[str, float]:
    sent = subprocess.run(_command("send", port, str(rate), str(seconds)), stdout=subprocess.PIPE, check=True)
    return cast("dict[str, float]", json.loads(sent.stdout))


def fill(database: Path, count: int) -> None:
    """A log with a backlog: small events, for it is their number that indexes grow with."""
    from events.cause import new_event
    from events.sqlite import SqliteEventLog

    with closing(SqliteEventLog(database)) as log:
        first = new_event("stripe.invoice.paid", ("invoice", "in_1"), {"id": "evt"}, source="stripe")
        for _ in range(count // 10_000):
            ids = [str(uuid.uuid4()) for _ in range(10_000)]
            log.publish(
                [
                    first.model_copy(
                        update={"id": one, "metadata": first.metadata.model_copy(update={"dedupe_key": f"evt_{one}"})}
                    )
                    for one in ids
                ]
            )


# --- the server -------------------------------------------------------------------------------------------------


def serve(app: str, database: str) -> None:
    """Serves until it is told to end; prints its port."""
    import uvicorn

    config = _floor(Path(database)) if app == "floor" else _receiver(Path(database))
    server = uvicorn.Server(config)

    async def until_ended() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await serving

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(until_ended())


def _receiver(database: Path) -> Any:
    from events.sqlite import SqliteEventLog
    from gateway.app import create_app
    from gateway.logs import log_to_stderr
    from gateway.serve import configured

    log_to_stderr()
    settings = Settings.model_validate({"stripe_webhook_secrets": SECRET, "gateway_port": 0})
    return configured(create_app(settings, SqliteEventLog(database)), settings)


def _floor(database: Path) -> Any:
    """Verifies, commits what waits together, says 2xx; nothing else."""
    import uvicorn
    from pydantic_core import from_json
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from stripe import WebhookSignature

    from events.group import GroupCommit

    group: Any = GroupCommit(cast("Any", _Table(database)), limit=10_000, committed=lambda _: None)

    async def receive(request: Request) -> Response:
        body = await request.body()
        WebhookSignature.verify_header(body.decode(), request.headers["stripe-signature"], SECRET, tolerance=300)
        await group.publish([(from_json(body)["id"], body)])
        return Response()

    app = Starlette(routes=[Route("/webhooks/stripe", receive, methods=["POST"])])
    return uvicorn.Config(app, port=0, log_config=None, access_log=False, server_header=False)


class _Table:
    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE events (id TEXT UNIQUE, body BLOB)")

    def publish(self, rows: Sequence[tuple[str, bytes]]) -> list[bool]:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO events VALUES (?, ?) ON CONFLICT DO NOTHING", rows)
        self._connection.execute("COMMIT")
        return [True] * len(rows)


# --- the sender -------------------------------------------------------------------------------------------------


def send(port: int, rate: float, seconds: float) -> None:
    """Sends, and prints what came of it."""
    import uvloop

    print(json.dumps(uvloop.run(_send(port, rate, seconds))))


async def _send(port: int, rate: float, seconds: float) -> dict[str, float]:
    due = _due(rate)
    ends = time.perf_counter() + seconds
    taken: list[float] = []
    await asyncio.gather(*(_connection(port, due, ends, taken) for _ in range(CONNECTIONS)))
    taken.sort()
    return {"rate": len(taken) / seconds, "p99": taken[len(taken) * 99 // 100] * 1000, "requests": len(taken)}


def _due(rate: float) -> Iterator[float]:
    """When each request is to be sent: at once, or evenly."""
    started, number = time.perf_counter(), 0
    while True:
        yield started + number / rate if rate else time.perf_counter()
        number += 1


async def _connection(port: int, due: Iterator[float], ends: float, taken: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for at in due:
        if (wait := at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        if time.perf_counter() > ends:
            break
        writer.write(_request())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the server answered {head!r}")
        if found := re.search(rb"content-length: (\d+)", head):
            await reader.readexactly(int(found[1]))
        taken.append(time.perf_counter() - at)
    writer.close()


def _request() -> bytes:
    body = _EVENT.replace(b"ID", uuid.uuid4().hex.encode())
    now = b"%d" % time.time()
    signature = hmac.digest(SECRET.encode(), now + b"." + body, hashlib.sha256).hex().encode()
    return _HEAD % (now, signature, len(body)) + body


_HEAD = (
    b"POST /webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Stripe/1.0\r\nAccept: */*; q=0.5\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nStripe-Signature: t=%b,v1=%b\r\nContent-Length: %d\r\n\r\n"
)


def _event() -> bytes:
    customer = {"id": "cus_1", "object": "customer", "email": "zoe@example.com", "metadata": {}, "balance": 0}
    told = {
        "id": "evt_ID", "object": "event", "api_version": "2025-03-31.basil", "created": 1_700_000_000,
        "type": "customer.updated", "livemode": False, "data": {"object": customer},
    }  # fmt: skip
    fields = {f"field_{number}": f"value of field {number}" for number in range(100)}
    while len(json.dumps(told)) < SIZE - 32:
        name, value = fields.popitem()
        customer["metadata"][name] = value  # type: ignore[index]
    return json.dumps(told).encode()


_EVENT = _event()


def _processor(pid: int) -> float:
    """Seconds, its own and the system's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def _child(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of this module, and the first line that it prints."""
    with subprocess.Popen(_command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout
        try:
            yield child, child.stdout.readline().strip()
        finally:
            child.kill()


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.receiver", *arguments]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", app, database]:
            serve(app, database)
        case ["send", port, rate, seconds]:
            send(int(port), float(rate), float(seconds))

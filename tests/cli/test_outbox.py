"""`pivotal events work --outbox`."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from events.log import open_log
from events.outbox import put
from tests.events.samples import event

PIVOTAL = Path(sys.executable).parent / "pivotal"


def test_the_worker_relays_an_outbox_until_sigterm(project: Path) -> None:
    shop = sa.create_engine(f"sqlite:///{project}/shop.db")
    command = [str(PIVOTAL), "events", "work", "--outbox", f"sqlite:///{project}/shop.db"]
    with closing(open_log(f"sqlite:///{project}/data/events.db")) as log:
        worker = subprocess.Popen(command, cwd=project, stderr=subprocess.DEVNULL)
        try:
            for n in range(2):
                with shop.begin() as connection:
                    put(connection, event(str(n)))
                assert log.wait(n, 60) == n + 1
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0
        finally:
            worker.kill()
            worker.wait()
    shop.dispose()

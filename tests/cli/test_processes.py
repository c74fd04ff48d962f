"""Child processes end together."""

from __future__ import annotations

import os
import sys
import time

import pytest

from cli.processes import Children, free_port
from errors import PivotalError
from tests.services.process import alive

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("grandchild", child.pid, flush=True)
time.sleep(600)
"""


def wait_for(lines: list[str], word: str) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for line in lines:
            if word in line:
                return line
        time.sleep(0.02)
    raise AssertionError(f"nobody said {word!r}: {lines}")


def test_what_a_child_started_ends_with_it() -> None:
    lines: list[str] = []
    with Children(lambda _, line: lines.append(line)) as children:
        child = children.start("family", [sys.executable, "-c", FAMILY], {})
        grandchild = int(wait_for(lines, "grandchild").split()[1])
        assert alive(grandchild)
    assert child.process.returncode is not None
    deadline = time.monotonic() + 10
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(grandchild)


def test_a_child_that_ignores_the_request_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.processes.GRACE", 0.2)
    deaf = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    lines: list[str] = []
    with Children(lambda _, line: lines.append(line)) as children:
        child = children.start("deaf", [sys.executable, "-c", deaf], {})
        wait_for(lines, "deaf")
    assert child.process.returncode == -9


def test_a_child_that_ends_by_itself_is_told_with_its_last_words() -> None:
    with Children(lambda *_: None) as children:
        child = children.start("broken", [sys.executable, "-c", "print('no such table'); raise SystemExit(3)"], {})
        child.process.wait()
        wait_for(child.tail, "no such table")  # type: ignore[arg-type]
        with pytest.raises(PivotalError, match=r"broken ended with exit code 3[\s\S]*no such table"):
            children.check()


def test_a_child_that_never_listens_is_told() -> None:
    with Children(lambda *_: None) as children:
        child = children.start("silent", [sys.executable, "-c", "pass"], {})
        with pytest.raises(PivotalError, match="silent did not start on port"):
            children.wait_until_listening(child, free_port(), timeout=20)


def test_a_child_sees_the_environment_and_the_variables_it_is_given() -> None:
    lines: list[str] = []
    with Children(lambda _, line: lines.append(line)) as children:
        code = "import os; print(os.environ['PATH'] == os.environ['SAME'], os.environ['MORE'])"
        children.start("env", [sys.executable, "-c", code], {"SAME": os.environ["PATH"], "MORE": "more"})
        assert wait_for(lines, "more") == "True more"

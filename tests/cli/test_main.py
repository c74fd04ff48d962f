"""The command line itself: help, usage, exit codes, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli import main
from errors import PivotalError
from tests.cli.conftest import Pivotal

PIVOTAL = Path(sys.executable).parent / "pivotal"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What the command `fail` raises."""
    raised: list[BaseException] = []

    @click.command()
    @click.option("--json", is_flag=True)
    def fail(json: bool) -> None:  # noqa: ARG001  (read from the arguments)
        raise raised[0]

    monkeypatch.setitem(main.pivotal.commands, "fail", fail)
    return raised


def test_help_imports_nothing_that_takes_time() -> None:
    heavy = {"dagster", "duckdb", "orjson", "pyarrow", "pydantic", "rich", "settings", "sqlalchemy", "yaml"}
    code = "import sys; from cli.main import answer; code = answer(['--help']); print(*sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Commands:" in done.stdout
    assert not heavy & set(done.stdout.split())


def test_the_version_is_told(pivotal: Pivotal) -> None:
    assert pivotal("--version").out == "pivotal 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lsit"], "No such command 'lsit'. Did you mean 'list'?"),
        (["check", "--jsn"], "No such option '--jsn'. Did you mean '--json'?"),
        (["quarantine", "reply", "orders"], "No such command 'reply'. Did you mean 'replay'?"),
        (["run"], "Missing argument 'NAME'."),
        (["preview", "orders", "--limit", "none"], "'none' is not a valid integer range."),
        (["preview", "orders", "--limit", "0"], "0 is not in the range 1<=x<=1000."),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_was_meant(pivotal: Pivotal, arguments: list[str], says: str) -> None:
    answer = pivotal(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err


def test_without_a_command_the_help_is_shown(pivotal: Pivotal) -> None:
    assert "Commands:" in pivotal().err


def test_an_error_of_ours_is_its_message_and_hint(pivotal: Pivotal, failing: list[BaseException]) -> None:
    failing.append(PivotalError("the shop is closed", hint="come back tomorrow"))
    answer = pivotal("fail")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "Error: the shop is closed\n  hint: come back tomorrow\n"


def test_programs_get_errors_as_json_on_stderr(pivotal: Pivotal, failing: list[BaseException]) -> None:
    failing.append(PivotalError("the shop is closed", retryable=True))
    answer = pivotal("fail", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert json.loads(answer.err) == {
        "error": {
            "type": "PivotalError",
            "message": "the shop is closed",
            "hint": None,
            "retryable": True,
            "problems": [],
        }
    }


def test_a_bug_is_called_a_bug_and_its_text_which_may_hold_a_secret_is_not_shown(
    pivotal: Pivotal, failing: list[BaseException]
) -> None:
    failing.append(KeyError("hunter2"))
    answer = pivotal("fail")
    assert answer.code == 1
    assert answer.err.startswith("Error: a bug in pivotal, not a mistake of yours: KeyError at test_main.py:")
    assert "`pivotal --debug fail` shows more" in answer.err
    assert "Traceback" not in answer.err
    assert "hunter2" not in answer.err


def test_debug_shows_the_traceback_of_a_bug(pivotal: Pivotal, failing: list[BaseException]) -> None:
    failing.append(KeyError("x"))
    assert "Traceback" in pivotal("--debug", "fail").err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("Query interrupted")])
def test_ctrl_c_ends_with_130_and_one_line(
    pivotal: Pivotal, failing: list[BaseException], error: BaseException
) -> None:
    failing.append(error)
    answer = pivotal("fail")
    assert (answer.code, answer.err.strip()) == (130, "Interrupted.")


@pytest.mark.usefixtures("project")
def test_a_setting_that_does_not_fit_is_told_without_its_value(
    pivotal: Pivotal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIVOTAL_GATEWAY_PORT", "hunter2")
    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "0")
    answer = pivotal("list")
    assert answer.code == 1
    assert "PIVOTAL_LOCK_TIMEOUT: input should be greater than 0" in answer.err
    assert "PIVOTAL_GATEWAY_PORT: input should be a valid integer" in answer.err
    assert "hunter2" not in answer.err


def test_a_reader_that_has_seen_enough_is_no_error(project: Path) -> None:
    for number in range(300):
        (project / f"pipelines/p{number}.yaml").write_text("x: 1\n" * 3)
    done = subprocess.run(
        f"{PIVOTAL} check | head -1", shell=True, cwd=project, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_colours_are_for_terminals_and_not_for_those_who_do_not_want_them(project: Path) -> None:
    (project / "pipelines/orders.yaml").write_text("x: 1\n")
    assert b"\x1b[" in _on_terminal(project, {"TERM": "xterm"})
    assert b"\x1b[" not in _on_terminal(project, {"TERM": "xterm", "NO_COLOR": "1"})


def _on_terminal(project: Path, environment: dict[str, str]) -> bytes:
    """What `pivotal check` prints on a terminal."""
    ours, theirs = os.openpty()
    with subprocess.Popen([PIVOTAL, "check"], cwd=project, stdout=theirs, env={**os.environ, **environment}) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
        process.wait(30)
    os.close(ours)
    return shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""

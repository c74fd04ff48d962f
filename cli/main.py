"""`pivotal`: the command line. Each command imports what it runs when it runs, so that `--help` answers at once.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

import click

from cli.demo import demo
from cli.events import events
from cli.output import say, say_json
from cli.pipelines import check, list_, preview, run, show_problems
from cli.quarantine import quarantine
from cli.reconcile import reconcile
from cli.serve import dev, gateway, sandbox
from cli.state import state
from cli.stream import stream
from cli.transfer import export, import_
from errors import ConfigError, PivotalError

if TYPE_CHECKING:
    from pydantic import ValidationError

DONE, FAILED, INTERRUPTED = 0, 1, 130
_DUCKDB_INTERRUPTED = "Query interrupted"  # what a Ctrl-C becomes inside a query: a RuntimeError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pivotal-flow-integrations", prog_name="pivotal", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show where an unexpected error comes from.")
def pivotal() -> None:
    """Move Pivotal Flow's data and events between it and the outside world."""


for command in (
    list_,
    check,
    preview,
    run,
    stream,
    state,
    quarantine,
    import_,
    export,
    events,
    reconcile,
    demo,
    dev,
    gateway,
    sandbox,
):
    pivotal.add_command(command)


def main() -> NoReturn:
    """The entry point of `pivotal`. Who asks it to end (SIGTERM) gets the same as by Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(answer(sys.argv[1:]))


def answer(arguments: Sequence[str]) -> int:
    """Runs a command and tells what went wrong, without a traceback where it is not a bug.

    Args:
        arguments: What the user typed after `pivotal`.

    Returns:
        The exit code.
    """
    try:
        code = pivotal.main(list(arguments), prog_name="pivotal", standalone_mode=False)
    except BrokenPipeError:  # the reader, `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # noqa: BLE001  (the last resort: it becomes a message and an exit code)
        return _tell(error, arguments)
    return code if isinstance(code, int) else DONE


def _tell(error: Exception, arguments: Sequence[str]) -> int:
    """Prints what went wrong; returns the exit code."""
    as_json = "--json" in arguments
    if isinstance(error, click.Abort) or str(error) == _DUCKDB_INTERRUPTED:
        say("Interrupted.", error=True)
        return INTERRUPTED
    if isinstance(error, click.ClickException) and not as_json:
        error.show()
        return error.exit_code
    known = _known(error, arguments)
    if as_json:
        say_json({"error": _as_dict(known)}, error=True)
    elif isinstance(known, ConfigError):
        show_problems(known.problems, error=True)
    else:
        say(f"Error: {known}", error=True, fg="red")
    if "--debug" in arguments and known is not error:
        traceback.print_exception(error)
    return error.exit_code if isinstance(error, click.ClickException) else FAILED


def _known(error: Exception, arguments: Sequence[str]) -> PivotalError:
    """An error in our words; what we have no words for is a bug of ours."""
    if isinstance(error, PivotalError):
        return error
    if isinstance(error, click.ClickException):
        return PivotalError(error.format_message(), hint="see `pivotal --help`")
    if type(error).__name__ == "ValidationError" and getattr(error, "title", "") == "Settings":
        return _settings_error(cast("ValidationError", error))
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    command = shlex.join(["pivotal", "--debug", *arguments])
    return PivotalError(
        f"a bug in pivotal, not a mistake of yours: {what}", hint=f"`{command}` shows more; please report it"
    )


def _settings_error(error: ValidationError) -> PivotalError:
    """Which environment variables have values that do not fit. The values themselves may be secrets."""
    wrong = [
        f"PIVOTAL_{str(each['loc'][0]).upper()}: {each['msg'][:1].lower()}{each['msg'][1:]}" for each in error.errors()
    ]
    return PivotalError("; ".join(wrong), hint="mend them in the environment or in .env; settings.py says what each is")


def _as_dict(error: PivotalError) -> dict[str, object]:
    told: dict[str, object] = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
    problems = [asdict(problem) for problem in error.problems] if isinstance(error, ConfigError) else []
    return told | {"retryable": error.retryable, "problems": problems}

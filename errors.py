"""The error family: every error a user can meet says what happened, where, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PivotalError(Exception):
    """Base of every error that this project raises on purpose.

    Args:
        message: What happened, to which pipeline, row or call. Never holds a secret.
        hint: The next step for the person who reads it.
        retryable: Whether the same call can succeed later without a change.
    """

    def __init__(self, message: str, *, hint: str | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a file that a person wrote.

    Args:
        file: The file's path, as the user would type it.
        line: Line number, from 1.
        column: Column number, from 1.
        message: What is wrong.
        text: The offending text, as it stands in the file.
        hint: How to mend it.
    """

    file: str
    line: int
    column: int
    message: str
    text: str = ""
    hint: str = ""

    def __str__(self) -> str:
        shown = f": {self.text!r}" if self.text else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{shown}{hint}"


class ConfigError(PivotalError):
    """The declared pipelines or the settings cannot be used as they are written."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class SourceError(PivotalError):
    """A source cannot be read."""


class RuleError(PivotalError):
    """The rules cannot be applied to the data at all (a single bad row is quarantined instead)."""


class DestinationError(PivotalError):
    """A destination cannot be written or read."""


class AccountingError(PivotalError):
    """A run cannot prove where every row went (promise 1), so it was rolled back."""


class InvalidRowsError(PivotalError):
    """A row broke a rule in a pipeline that says `on_invalid: fail`."""


class EventLogError(PivotalError):
    """The event log cannot be written or read."""


class IntegrationError(PivotalError):
    """An outside service refused a call or could not be reached.

    Args:
        message: As in `PivotalError`.
        service: The service's name (`stripe`, `sendgrid`, ...).
        operation: What was asked of it (`customers.create`).
        status: HTTP status, where there was an answer.
        code: The service's own name of the failure (`card_declined`).
        request_id: The service's own id of the call, for its support desk.
        retry_after: Seconds that the service asked to be left alone.
        hint: As in `PivotalError`.
        retryable: As in `PivotalError`; False as well if the call may have been done and must not be done twice.
    """

    def __init__(  # noqa: PLR0913  (all but the message are named)
        self,
        message: str,
        *,
        service: str,
        operation: str,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        hint: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, hint=hint, retryable=retryable)
        self.service = service
        self.operation = operation
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after

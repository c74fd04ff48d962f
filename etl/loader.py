"""Pipeline files: read, checked, every mistake of every file told at once, with file, line, column and a hint.

Two depths. `load_pipelines` is what Dagster's load calls: structure, names, variables; a few milliseconds a file, no
engine imported. `check` (`pivotal check`) also reads the expressions with the engine's parser and looks whether the
columns that rules name can exist. A run finds the same mistakes when it compiles the rules, before it reads a row.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from errors import ConfigError, PivotalError, Problem
from etl.documents import Document, read
from etl.mistakes import explain
from etl.pipeline import ApiSource, BearerAuth, Pipeline, plain_name
from etl.services import SERVICES
from etl.variables import find_problems, resolve

__all__ = ["check", "load_pipelines", "read_pipelines", "resolve"]

_SUFFIXES = (".yaml", ".yml")
_FIRST = "write one: docs/pipelines.md shows how"


def load_pipelines(folder: Path) -> list[Pipeline]:
    """Loads every pipeline of a folder, by file name.

    Args:
        folder: The folder; files in folders below it are not read.

    Raises:
        ConfigError: At least one file has a mistake; it holds the mistakes of all files.
    """
    pipelines, problems = read_pipelines([folder])
    if problems:
        raise ConfigError(problems)
    return pipelines


def read_pipelines(paths: Sequence[Path]) -> tuple[list[Pipeline], list[Problem]]:
    """Reads pipelines as far as they can be read.

    Args:
        paths: Files, and folders of files.

    Returns:
        The pipelines without a mistake, by file name, and the mistakes of the others.
    """
    files, problems = _read_all(paths)
    problems += [problem for file in files for problem in file.problems]
    return [file.pipeline for file in files if file.pipeline and not file.problems], sorted(problems)


def check(paths: Sequence[Path]) -> list[Problem]:
    """Finds every mistake that can be found without a server.

    Args:
        paths: Files, and folders of files.
    """
    from etl import connections, references

    files, problems = _read_all(paths)
    for path in paths:
        if path.is_dir() and not _listed(path):
            problems.append(Problem(_shown(path), 1, 1, "there is no pipeline in this folder", hint=_FIRST))
    for file in files:
        problems += file.problems
        if file.document:
            problems += references.find_problems(file.document, None if file.problems else file.pipeline)
            problems += connections.find_problems(file.document, file.pipeline) if file.pipeline else []
    return sorted(problems)


# --- files ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _File:
    """A pipeline file, as far as it can be read."""

    name: str
    problems: list[Problem]
    document: Document | None = None
    pipeline: Pipeline | None = None


def _read_all(paths: Sequence[Path]) -> tuple[list[_File], list[Problem]]:
    """The files, and the mistakes of the paths themselves."""
    files: dict[Path, _File] = {}
    problems: list[Problem] = []
    for path in paths:
        if path.is_dir():
            files |= {each: _read(each) for each in _listed(path)}
        elif path.suffix or path.exists():
            files[path] = _read(path)
        else:
            problems.append(Problem(_shown(path), 1, 1, "there is no such folder", hint="see `pivotal check --help`"))
    _tell_same_names(files.values())
    return list(files.values()), problems


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    except OSError as error:
        raise ConfigError([Problem(_shown(folder), 1, 1, f"cannot be read: {error.strerror}")]) from None


def _read(path: Path) -> _File:
    try:
        document = read(path, _shown(path))
    except ConfigError as error:
        return _File(path.stem, list(error.problems))
    file = _File(str(document.data.get("name", path.stem)), document.problems, document)
    file.problems += find_problems(document)
    data = document.data
    if "name" not in data:
        file.problems += _file_name_problems(document, path.stem)
        data = {**data, "name": "unnamed" if file.problems else path.stem}
    try:
        file.pipeline = Pipeline.model_validate(data)
        file.problems += _service_problems(document, file.pipeline)
    except ValidationError as error:
        file.problems += explain(document, error)
    return file


def _service_problems(document: Document, pipeline: Pipeline) -> list[Problem]:
    """What a service that is known by name needs, and the file does not show: variables of the environment."""
    source = pipeline.source
    if not isinstance(source, ApiSource) or source.service is None:
        return []
    own = SERVICES[source.service].keys["auth"]
    if source.auth != BearerAuth(**own):
        return []
    try:
        resolve(own["token"])
    except PivotalError as error:
        hint = "set it in the environment or in .env, or say `auth` here"
        return [document.problem(("source", "service"), error.message, hint)]
    return []


def _file_name_problems(document: Document, stem: str) -> list[Problem]:
    try:
        plain_name(stem)
    except ValueError as error:
        message = f"the file's name, which names the pipeline, is {str(error).partition('; ')[0]}"
        hint = "rename the file, or say `name: ...` in it: a-z, 0-9 and _, a letter first"
        return [Problem(document.file, 1, 1, message, stem, hint)]
    return []


def _tell_same_names(files: Iterable[_File]) -> None:
    """Two pipelines of one name would share state, lock and asset: neither can be told from the other."""
    first: dict[str, _File] = {}
    for file in files:
        if not file.document:
            continue
        other = first.setdefault(file.name, file)
        if other is not file and other.document:
            message = f"a pipeline of this name is in {other.document.file}, too"
            here = file.document.problem(("name",), message, "give one of them another `name`")
            file.problems.append(replace(here, text=file.name))
            other.pipeline = file.pipeline = None


def _shown(path: Path) -> str:
    """A path as the user would type it."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  (a link is shown as the user knows it)
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)

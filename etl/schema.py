"""`schema`: a pandera schema that a batch's rows must follow, judged column by column, all failures at once.

The schema says what values are, and changes none: what would change them (parsers, defaults) is refused, and `coerce`
does nothing, since `convert` gives types. A column without NULLs and one with them are the same type to it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from errors import ConfigError, Problem, RuleError
from etl.checks import shown
from etl.stream import Broken
from settings import get_settings

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas

_SHOWN = 8
"""Columns that the message of a check across columns shows."""


def load_schema(name: str) -> Schema:
    """The schema that a pipeline names.

    Args:
        name: `pipelines/schemas/orders.py:Orders` (relative to the project's root) or `module:Name`.

    Raises:
        ConfigError: There is no such schema, it cannot be imported, or it would change values.
    """
    import pandera.pandas

    place, _, attribute = name.rpartition(":")
    found = getattr(_module(place), attribute, None)
    if isinstance(found, type) and issubclass(found, pandera.pandas.DataFrameModel):
        try:
            found = found.to_schema()
        except pandera.errors.SchemaInitError as error:
            raise _problem(place, f"{attribute} is no schema: {error}", "a check names a field of its model") from None
    if not isinstance(found, pandera.pandas.DataFrameSchema):
        what = "there is no" if found is None else "no pandera schema:"
        raise _problem(place, f"{what} {attribute}", "name a DataFrameModel or a DataFrameSchema")
    if wrong := _unfit(found):
        raise _problem(place, f"{attribute} has {wrong[0]}", wrong[1])
    return Schema(name, found)


class Schema:
    """A pandera schema.

    Args:
        name: As the pipeline names it.
        declared: What its module says.
    """

    def __init__(self, name: str, declared: pandera.pandas.DataFrameSchema) -> None:
        self._name, self._declared = name, declared
        self._untyped = declared.update_columns(
            {column: {"dtype": None, "coerce": False} for column in declared.columns}
        )
        self._untyped.coerce = self._untyped.drop_invalid_rows = False

    def broken(self, rows: pa.RecordBatch, *, missing_is_null: bool) -> Mapping[int, Sequence[Broken]]:
        """What is wrong with some rows, by their places.

        Args:
            rows: The rows.
            missing_is_null: Whether a column that the rows lack is NULL.

        Raises:
            RuleError: A column is missing or has another type, or a check does not judge row by row.
        """
        frame = _frame(rows)
        for name in self._declared.columns if missing_is_null else ():
            if name not in frame and not self._declared.columns[name].regex:
                frame[name] = None
        broken: defaultdict[int, list[Broken]] = defaultdict(list)
        for row, each in (*self._mistyped(frame), *self._failures(frame)):
            broken[row].append(each)
        return broken

    def _mistyped(self, frame: pd.DataFrame) -> Iterator[tuple[int, Broken]]:
        """Values that are not of the schema's type, where it tells that of each (a Decimal's scale)."""
        import numpy as np

        for column in self._declared.columns.values():
            for name in column.get_regex_columns(frame) if column.regex else {column.name} & set(frame.columns):
                series, wanted = frame[name], column.dtype
                if wanted is None or series.isna().all():
                    continue
                verdict = _is_of(wanted, series)
                if isinstance(verdict, bool):
                    if not verdict:
                        raise self._wrong(f"column {name} is {series.dtype}, but it wants {wanted}", wanted, name)
                    continue
                for row in np.flatnonzero(~verdict.to_numpy(dtype=bool, na_value=True) & series.notna().to_numpy()):
                    yield int(row), Broken(name, f"schema: {wanted}", f"{_text(series[row])} is not {wanted}")

    def _failures(self, frame: pd.DataFrame) -> Iterator[tuple[int, Broken]]:
        from pandera.config import ValidationDepth, config_context
        from pandera.errors import SchemaErrors

        try:
            with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
                self._untyped.validate(frame, lazy=True)
        except SchemaErrors as errors:
            cases = errors.failure_cases
        else:
            return
        whole = cases[cases["index"].isna()]
        for case in whole.itertuples():
            about = f"column {case.column}: " if case.schema_context == "Column" else ""
            raise self._wrong(f"{about}{case.check} fails as a whole: {_text(case.failure_case)}")
        told = set()
        for case in cases.itertuples():
            row, by_column = int(case.index), case.schema_context == "Column"
            if by_column or (row, case.check, case.check_number) not in told:
                told.add((row, case.check, case.check_number))
                yield row, self._column_failure(case) if by_column else _row_failure(case, frame, row)

    def _column_failure(self, case: Any) -> Broken:  # noqa: ANN401  (a row of pandera's report)
        says = "there is no value" if case.check == "not_nullable" else f"{_text(case.failure_case)} fails {case.check}"
        return Broken(str(case.column), f"schema: {case.check}", says)

    def _wrong(self, what: str, wanted: object = None, name: str = "") -> RuleError:
        if wanted is None:
            return RuleError(f"schema: {self._name}: {what}", hint="only what can be told of each row is a rule")
        return RuleError(
            f"schema: {self._name}: {what}",
            hint=f"give the column its type in `convert` ({name}: ...), or say the other one in the schema",
        )


def _row_failure(case: Any, frame: pd.DataFrame, row: int) -> Broken:  # noqa: ANN401  (a row of pandera's report)
    values = ", ".join(f"{name} = {_text(frame[name][row])}" for name in list(frame.columns)[:_SHOWN])
    return Broken("", f"schema: {case.check}", f"the row fails {case.check} with {values}")


def _text(value: object) -> str:
    import pandas as pd

    missing = value is None or value is pd.NA or value is pd.NaT or value != value  # noqa: PLR0124  (NaN)
    return "NULL" if missing else shown(str(value), "VARCHAR" if isinstance(value, str) else "")


# --- frames ---------------------------------------------------------------------------------------------------


def _frame(rows: pa.RecordBatch) -> pd.DataFrame:
    """The rows, exactly: integers and booleans that may be NULL do not become floats."""
    import pandas as pd

    nullable = {
        pa.bool_(): pd.BooleanDtype(), pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(), pa.uint32(): pd.UInt32Dtype(), pa.uint64(): pd.UInt64Dtype(),
    }  # fmt: skip
    return rows.to_pandas(types_mapper=nullable.get)


def _is_of(wanted: Any, series: pd.Series[Any]) -> bool | pd.Series[bool]:  # noqa: ANN401  (pandera's own types)
    """Whether a column is of a type of pandera's; it may answer for each value."""
    import pandas as pd
    from pandera.engines import pandas_engine

    if isinstance(wanted, pandas_engine.DateTime) and pd.api.types.is_datetime64_any_dtype(series):
        return str(wanted.tz) == str(getattr(series.dtype, "tz", None))
    names = [series.dtype, "bool"] if series.dtype == "boolean" else [series.dtype]
    verdicts = [wanted.check(pandas_engine.Engine.dtype(name), series) for name in names]
    each = [verdict for verdict in verdicts if not isinstance(verdict, bool)]
    return pd.Series(each[0]) if each else any(verdicts)


# --- modules --------------------------------------------------------------------------------------------------


def _unfit(schema: pandera.pandas.DataFrameSchema) -> tuple[str, str] | None:
    """What a schema has that cannot be held against rows as they pass, and what to do about it."""
    parts: Iterable[Any] = [schema, *schema.columns.values()]
    if any(part.parsers for part in parts):
        return "a parser, which changes values", "change them in `convert` or `derive`"
    if any(column.default is not None for column in schema.columns.values()):
        return "a default, which changes values", "say it in `derive`: coalesce(column, ...)"
    if any(part.unique for part in parts):
        return "`unique`, which a batch cannot tell", "say it under `validate`: {column: {unique: true}}"
    return ("an index, which rows have not", "make it a column") if schema.index is not None else None


def _module(place: str) -> ModuleType:
    path = get_settings().path(place) if place.endswith(".py") else None
    if path and not path.is_file():
        raise _problem(place, "there is no such file", "its path starts from the project's root")
    try:
        return _executed(path) if path else importlib.import_module(place)
    except Exception as error:  # noqa: BLE001  (a user's module may raise anything)
        what = f"it cannot be imported: {type(error).__name__}: {error}"
        raise _problem(place, what, line=_line(error, path)) from None


def _executed(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(str(path), path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = sys.modules[str(path)] = importlib.util.module_from_spec(spec)  # where pandera looks up its annotations
    spec.loader.exec_module(module)
    return module


def _line(error: Exception, path: Path | None) -> int:
    """Where in the file it went wrong."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return (lines[-1] if lines else None) or 1


def _problem(place: str, message: str, hint: str = "", line: int = 1) -> ConfigError:
    return ConfigError([Problem(place, line, 1, message, hint=hint)])

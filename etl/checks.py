"""What `convert` and `validate` say, as SQL that is true where a row breaks a rule. NULL passes all but `required`.

- min, max, in, not_in compare in the column's own type; what the file gives must convert to it exactly. Text has an
  order too (by code points), but a number never stands for text: quote it.
- type says what a value is, or what a text says; it changes nothing.
- references is told elsewhere (`etl.rules`), as unique is: it looks beyond the row.
- min_length, max_length count characters; pattern is RE2 and must match the whole text. Both are for text only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

import duckdb

from errors import RuleError
from etl.convert import INTEGERS, NoConversionError, conversion, described, engine_type, is_nested
from etl.pipeline import Checks, Scalar
from etl.quoting import literal
from etl.session import Session

_LONGEST = 80
"""Characters of a value that a message shows."""

_COMPARED_AS = {
    **dict.fromkeys(INTEGERS, "BIGINT"),
    "FLOAT": "DOUBLE",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIMESTAMPTZ_NS": "TIMESTAMP WITH TIME ZONE",
}


@dataclass(frozen=True, slots=True)
class Value:
    """A column's value, as SQL.

    Args:
        sql: The value.
        type: Its type, as DuckDB calls it.
    """

    sql: str
    type: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule on one column (or, for `filter`, on the whole row).

    Args:
        column: As in `Broken`.
        text: As in `Broken.rule`.
        broken: SQL: true for a row that breaks it (never for `unique` and `references`, which look beyond the row).
        says: What is wrong, after the value: "is less than 0".
        read: The value as it was read; None if the rule is on an expression.
        used: The values that an expression uses, by their columns.
    """

    column: str
    text: str
    broken: str
    says: str
    read: Value | None = None
    used: Mapping[str, Value] = field(default_factory=dict)

    @property
    def shown(self) -> list[Value]:
        """What `message` needs."""
        return [self.read] if self.read else list(self.used.values())

    def message(self, texts: Sequence[str | None]) -> str:
        """Says what is wrong with a row.

        Args:
            texts: The texts of `shown`; None is NULL.
        """
        if self.read:
            return self.says if texts[0] is None else f"{shown(texts[0], self.read.type)} {self.says}"
        named = [
            f"{column} = {shown(text, value.type)}"
            for text, (column, value) in zip(texts, self.used.items(), strict=True)
        ]
        return f"{self.says} with {', '.join(named)}" if named else self.says


def conversion_rule(column: str, target: str, wanted: str, read: Value, converted: str) -> Rule:
    """The rule that a value converts.

    Args:
        column: The column.
        target: The type as the file names it.
        wanted: The same in words.
        read: The value as it was read.
        converted: SQL of the converted value; NULL if it does not convert.
    """
    broken = f"{read.sql} IS NOT NULL AND {converted} IS NULL"
    return Rule(column, f"convert: {target}", broken, f"is not {wanted}", read)


def check_rules(session: Session, column: str, checks: Checks, read: Value, value: Value) -> Iterator[Rule]:
    """The rules of one column's checks.

    Args:
        session: Tells whether the file's values fit the column's type.
        column: The column.
        checks: What the file says.
        read: The value as it was read.
        value: The value after `convert`; NULL where it did not convert.

    Raises:
        RuleError: A check does not fit the column's type.
    """
    compared = _Comparison(session, column, value)
    if checks.required:
        yield Rule(column, "required", f"{read.sql} IS NULL", "there is no value", read)
    if checks.unique:
        yield Rule(column, "unique", "false", "is a duplicate: an earlier row of the run has it", read)
    if checks.references:
        place = f"{checks.references.table}.{checks.references.column}"
        yield Rule(column, f"references: {place}", "false", f"is not in {place}", read)
    if checks.type:
        yield _type_rule(column, checks.type, read, value)
    if checks.min is not None:
        bound, sql = _plain(checks.min), compared.literal("min", checks.min)
        yield Rule(column, f"min: {bound}", f"{value.sql} < {sql}", f"is less than {bound}", read)
    if checks.max is not None:
        bound, sql = _plain(checks.max), compared.literal("max", checks.max)
        yield Rule(column, f"max: {bound}", f"{value.sql} > {sql}", f"is greater than {bound}", read)
    yield from _text_rules(session, column, checks, read, value)
    if checks.in_:
        names, sql = _flow(checks.in_), compared.literals("in", checks.in_)
        yield Rule(column, f"in: [{names}]", f"{value.sql} NOT IN ({sql})", f"is none of {names}", read)
    if checks.not_in:
        names, sql = _flow(checks.not_in), compared.literals("not_in", checks.not_in)
        yield Rule(column, f"not_in: [{names}]", f"{value.sql} IN ({sql})", f"is one of {names}", read)


def _type_rule(column: str, target: str, read: Value, value: Value) -> Rule:
    try:
        kind = engine_type(target)
        converted = conversion(value.sql, value.type, kind)
    except NoConversionError as error:
        raise RuleError(f"validate: {column}: type: {target}: {error}") from None
    broken = f"{value.sql} IS NOT NULL AND {converted} IS NULL"
    return Rule(column, f"type: {target}", broken, f"is not {described(kind)}", read)


def _text_rules(session: Session, column: str, checks: Checks, read: Value, value: Value) -> Iterator[Rule]:
    given = {key: each for key in ("min_length", "max_length", "pattern") if (each := getattr(checks, key)) is not None}
    if given and value.type not in {"VARCHAR", '"NULL"'}:
        raise RuleError(
            f"validate: {column}: {next(iter(given))} is for text, the column is {value.type}",
            hint=f"leave it out, or say `convert: {{{column}: string}}`",
        )
    if checks.min_length is not None:
        shorter, says = f"length({value.sql}) < {checks.min_length}", f"has fewer than {checks.min_length} characters"
        yield Rule(column, f"min_length: {checks.min_length}", shorter, says, read)
    if checks.max_length is not None:
        longer, says = f"length({value.sql}) > {checks.max_length}", f"has more than {checks.max_length} characters"
        yield Rule(column, f"max_length: {checks.max_length}", longer, says, read)
    if checks.pattern is not None:
        _check_pattern(session, column, checks.pattern)
        differs = f"NOT regexp_full_match({value.sql}, {literal(checks.pattern)})"
        yield Rule(column, f"pattern: {checks.pattern}", differs, f"does not match {checks.pattern}", read)


def _check_pattern(session: Session, column: str, pattern: str) -> None:
    try:
        session.run("SELECT regexp_full_match('', ?)", pattern)
    except duckdb.Error as error:
        reason = str(error).splitlines()[0].partition(": ")[2]
        raise RuleError(
            f"validate: {column}: pattern: {pattern!r} is not a regular expression: {reason}",
            hint="the syntax is RE2's, which has no look-around and no back-references",
        ) from None


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Turns values of the file into literals of a column's type."""

    session: Session
    column: str
    value: Value

    def literals(self, check: str, values: list[Scalar]) -> str:
        return ", ".join(self.literal(check, value) for value in values)

    def literal(self, check: str, value: Scalar | date) -> str:
        kind = self.value.type
        text = literal(_plain(value))
        if kind == "VARCHAR":
            return text if isinstance(value, str) else self._refuse(check, value, "text")
        if kind in {"BLOB", "INTERVAL", "JSON"} or is_nested(kind):
            raise RuleError(
                f"validate: {self.column}: {check} cannot compare the column, which is {kind}",
                hint="convert the column to a plain type first",
            )
        if kind == '"NULL"':
            return "NULL"
        return self._converted(check, value, text)

    def _converted(self, check: str, value: Scalar | date, text: str) -> str:
        kind = self.value.type
        compared = _COMPARED_AS.get(kind, kind)
        try:
            fits = conversion(text, "VARCHAR", compared)
        except KeyError:  # a type that `convert` does not have: TIME
            fits, compared = f"TRY_CAST({text} AS {kind})", kind
        if self.session.run(f"SELECT {fits}")[0][0] is None:
            self._refuse(check, value, described(compared) if compared != "TIME" else "a time")
        return f"CAST({text} AS {kind if compared == 'DOUBLE' else compared})"

    def _refuse(self, check: str, value: Scalar | date, wanted: str) -> str:
        hint = f"write {check}: {_plain(value)!r}, in quotes, or convert the column" if wanted == "text" else None
        raise RuleError(
            f"validate: {self.column}: {check}: {_plain(value)} is not {wanted}, but the column is {self.value.type}",
            hint=hint or f"write a value of the column's type, or convert the column {self.column} first",
        )


def _plain(value: Scalar | date) -> str:
    """A value as the file spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _flow(values: list[Scalar]) -> str:
    return ", ".join(_plain(value) for value in values)


def shown(text: str | None, kind: str) -> str:
    """A value for a message: texts in quotes, long ones cut."""
    if text is None:
        return "NULL"
    cut = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return repr(cut) if kind in {"VARCHAR", "JSON"} else cut

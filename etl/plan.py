"""Rules, compiled once for a schema: one SELECT that judges every row, one that says what is wrong with a bad one.

In SQL the data's columns are r0, r1, ..., casts c0, ..., converted values v0, ..., expectations e0, ..., derived values
d0, ..., predicates p0, .... An expression is a macro whose parameters are the columns that it names, so no name can be
mistaken for another. What an expression gives comes wrapped, `TRY({'v': ...})`: the whole is NULL if it fails, and `v`
is NULL if that is its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, count

import duckdb
import pyarrow as pa

from errors import RuleError
from etl.checks import Rule, Value, check_rules, conversion_rule
from etl.convert import INTEGERS, NoConversionError, engine_type, is_nested, is_numeric
from etl.expressions import Expression, ExpressionError, parse, result_type
from etl.formats import reading, wanted
from etl.mapping import Mapped, mapped_columns, unknown_column
from etl.pipeline import Checks, Conversion, References, Transform
from etl.privacy import KEYED
from etl.quoting import quoted
from etl.session import ROWS, Session, Statement

GOOD, BROKEN, FILTERED = range(3)
"""What a row is, in the column `status` of `Plan.judge`."""

_WIDE = {"HUGEINT", "UHUGEINT", "BIGNUM"}
_NOT_KEPT = re.compile(r"\b(HUGEINT|UHUGEINT|BIGNUM|BIT|ENUM|GEOMETRY|TIME WITH TIME ZONE|TUPLE|TYPE|UNION|VARIANT)\b")
_JSON = re.compile(r"\bJSON\b")
_MAY_DIVIDE = re.compile(r"[/%]|mod\(|divide\(")
_HASHED_EXACTLY = {"BOOLEAN", "DATE", "DOUBLE", "FLOAT", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"}
"""Types of at most 64 bits: DuckDB's hash gives each of their values a number of its own."""


@dataclass(frozen=True, slots=True)
class Output:
    """A column of the result.

    Args:
        name: Its name.
        kept: Where the data has it, if it is handed on as it is.
        value: The value.
    """

    name: str
    kept: Mapped | None
    value: Value


@dataclass(frozen=True)
class Plan:
    """Rules for one schema, prepared.

    Args:
        judge: Answers, one row each: `status`; o0, ... (outputs that are not kept); s0, ... (the same of `checked`);
            k0, h0, n0, ... (key, hash and presence of the value that rule 0 wants unique); f0, ... (the value that
            rule 0 looks for in another table).
        diagnose: Answers, one row each: the data's columns as text; for each rule whether the row breaks it, and the
            texts that its message shows.
        types: Column of the data -> its DuckDB type.
        rules: The rules.
        outputs: The columns of the result.
        checked: The columns that a schema is about: as they are before `derive`.
        references: Rules that look into another table: number -> which, and the value.
    """

    judge: Statement
    diagnose: Statement
    types: Mapping[str, str]
    rules: Sequence[Rule]
    outputs: Sequence[Output]
    checked: Sequence[Output]
    references: Mapping[int, tuple[References, Value]]

    @cached_property
    def spans(self) -> list[tuple[int, Rule, int, int]]:
        """Where `diagnose` has each rule: number, rule, start (whether it is broken, then the texts) and stop."""
        stops = list(accumulate((1 + len(rule.shown) for rule in self.rules), initial=len(self.types)))
        return list(zip(count(), self.rules, stops, stops[1:], strict=False))

    @cached_property
    def unique(self) -> dict[int, str]:
        """Rules that look at other rows: number -> column."""
        return {number: rule.column for number, rule in enumerate(self.rules) if rule.text == "unique"}


def compile_plan(session: Session, transform: Transform, schema: pa.Schema, converted: Sequence[str] = ()) -> Plan:
    """Compiles rules for a schema.

    Args:
        session: Where they will run.
        transform: The rules.
        schema: What they will run on.
        converted: Columns, as `convert` names them, whose converted values are the schema's last fields.

    Raises:
        RuleError: They do not fit the schema.
    """
    draft = _Draft(session, transform, schema, len(schema) - len(converted))
    for name, target in transform.convert.items():
        if name in converted:
            draft.take(name, target, len(schema) - len(converted) + list(converted).index(name))
        else:
            draft.convert(name, target)
    draft.layer()
    for name, checks in transform.checks.items():
        draft.validate(name, checks)
    for number, text in enumerate(transform.expect):
        draft.expect(f"e{number}", text)
    draft.layer()
    if transform.schema_:
        draft.check()
    for number, (name, text) in enumerate(transform.derive.items()):
        draft.derive(f"d{number}", name, text)
        draft.layer()
    for number, text in enumerate(transform.filter):
        draft.filter(f"p{number}", text)
    draft.layer()
    return draft.plan()


class _Draft:
    """A plan in the making: each step adds its rule, and a layer around the SELECT so far."""

    def __init__(self, session: Session, transform: Transform, schema: pa.Schema, width: int) -> None:
        self._session, self._schema = session, schema
        schema = pa.schema(list(schema)[:width])
        self._missing_is_null = transform.on_missing_column is None
        columns = mapped_columns(transform, schema)
        self._types = _source_types(session, schema)
        kinds = session.types(schema, [column.sql for column in columns])
        self._columns = {column.name: column for column in columns}
        self._read = {column.name: Value(column.sql, kind) for column, kind in zip(columns, kinds, strict=True)}
        self._values = dict(self._read)
        self._taken: dict[Value, Mapped] = {}
        self._rules: list[Rule] = []
        self._unique: dict[int, Value] = {}
        self._references: dict[int, tuple[References, Value]] = {}
        self._checked: list[Output] = []
        self._conditions: list[str] = []
        self._rows = ROWS
        self._casts: list[str] = []
        self._items: list[str] = []

    def take(self, name: str, target: Conversion, place: int) -> None:
        """Takes a column's values from the data, where they stand converted."""
        value = self._values[name] = Value(f"r{place}", engine_type(target.type))
        self._taken[value] = Mapped(name, place)

    def convert(self, name: str, target: Conversion) -> None:
        read, number = self._read[name], len(self._rules)
        try:
            converted = reading(read, target, number)
        except NoConversionError as error:
            raise RuleError(f"convert: {name}: {target.type}: {error}") from None
        if converted.value != read.sql:
            value = Value(f"v{number}", engine_type(target.type))
            self._casts += [f"{sql} AS {column}" for column, sql in converted.casts.items()]
            self._items.append(f"{converted.value} AS {value.sql}")
            self._values[name] = value
            self._rules.append(conversion_rule(name, target.type, wanted(target), read, value.sql))

    def validate(self, name: str, checks: Checks) -> None:
        for rule in check_rules(self._session, name, checks, self._read[name], self._values[name]):
            if rule.text == "unique":
                self._unique[len(self._rules)] = self._values[name]
            if checks.references and rule.text.startswith("references: "):
                self._references[len(self._rules)] = checks.references, self._values[name]
            self._rules.append(rule)

    def expect(self, alias: str, text: str) -> None:
        used = self._condition("expect", alias, text)
        rule = f"expect: {text}"
        self._rules.append(Rule("", rule, f"{alias}.v = false", f"{text} does not hold", used=used))
        self._failure("", rule, alias, f"{text} cannot be told", used)

    def check(self) -> None:
        """Notes what a schema is about."""
        self._checked = [self._output(name) for name in self._values]

    def derive(self, alias: str, name: str, text: str) -> None:
        expression, used, kind = self._typed(f"derive: {name}", text)
        call = self._macro(alias, expression, used)
        if kind in _WIDE:
            kind, call = "DECIMAL(38,0)", f"CAST({call} AS DECIMAL(38,0))"
        if _NOT_KEPT.search(kind):
            raise RuleError(
                f"derive: {name}: the result is a {kind}, which is kept nowhere",
                hint="give it another type: CAST(... AS VARCHAR)",
            )
        self._try(alias, expression, call, used)
        self._values[name] = Value(f"{alias}.v", kind)
        self._failure(name, f"derive: {name}", alias, f"{text} cannot be computed", used)

    def filter(self, alias: str, text: str) -> None:
        used = self._condition("filter", alias, text)
        self._conditions.append(f"{alias}.v")
        self._failure("", f"filter: {text}", alias, f"{text} cannot be told", used)

    def _condition(self, section: str, alias: str, text: str) -> dict[str, Value]:
        """Adds a condition; returns the values that it uses."""
        expression, used, kind = self._typed(section, text)
        if kind not in {"BOOLEAN", '"NULL"'}:
            hint = "write a comparison: status <> 'test'"
            raise RuleError(f"{section}: {text} is a {kind}, not a condition", hint=hint)
        self._try(alias, expression, self._macro(alias, expression, used), used)
        return used

    def layer(self) -> None:
        """Ends a layer: what follows may use what it has."""
        for items in (self._casts, self._items):
            if items:
                self._rows = f"(SELECT *, {', '.join(items)} FROM {self._rows})"
                items.clear()

    def plan(self) -> Plan:
        outputs = [self._output(name) for name in self._values]
        return Plan(
            judge=self._prepared(self._judgement(outputs)),
            diagnose=self._prepared(self._diagnosis()),
            types={name: "JSON" if _has_json(kind) else kind for name, kind in self._types.items()},
            rules=self._rules,
            outputs=outputs,
            checked=self._checked,
            references=self._references,
        )

    def _prepared(self, items: Iterable[str]) -> Statement:
        return self._session.prepare(f"SELECT {', '.join(items)} FROM {self._rows}", self._schema)

    def _judgement(self, outputs: Sequence[Output]) -> Iterator[str]:
        broken = " OR ".join(f"({rule.broken})" for rule in self._rules) or "false"
        stays = " AND ".join(self._conditions) or "true"
        status = f"CASE WHEN {broken} THEN {BROKEN} WHEN {stays} THEN {GOOD} ELSE {FILTERED} END"
        yield f"CAST({status} AS TINYINT) AS status"
        for letter, columns in (("o", outputs), ("s", self._checked)):
            for number, output in enumerate(columns):
                if not output.kept:
                    yield f"{_for_arrow(output.value)} AS {letter}{number}"
        for number, (_, value) in self._references.items():
            yield f"{_for_arrow(value)} AS f{number}"
        for number, value in self._unique.items():
            yield from _keys(number, value)

    def _diagnosis(self) -> Iterator[str]:
        for number, kind in enumerate(self._types.values()):
            yield _as_text(Value(f"r{number}", kind))
        for rule in self._rules:
            yield f"({rule.broken}) IS TRUE"
            yield from map(_as_text, rule.shown)

    def _output(self, name: str) -> Output:
        value = self._values[name]
        return Output(name, self._columns[name] if value == self._read.get(name) else self._taken.get(value), value)

    def _typed(self, section: str, text: str) -> tuple[Expression, dict[str, Value], str]:
        """An expression, the values that it uses, and its type."""
        try:
            expression = parse(text)
            used = self._used(section, expression)
            kind = result_type(text, {name: value.type for name, value in used.items()})
            if KEYED in expression.functions:
                self._session.use_hash_key()
        except ExpressionError as error:
            raise RuleError(f"{section}: {text}: {error.message}", hint=error.hint) from None
        if kind is None:
            raise RuleError(
                f"{section}: {text}: its type cannot be told", hint="give the columns that it uses a type in `convert`"
            )
        return expression, used, kind

    def _used(self, section: str, expression: Expression) -> dict[str, Value]:
        """The values that an expression uses. To the engine, a name in upper and in lower case is the same."""
        used: dict[str, Value] = {}
        spelled: dict[str, str] = {}
        for name in expression.columns:
            value = self._value(section, name)
            first = spelled.setdefault(name.lower(), name)
            if used.setdefault(first, value) != value:
                raise RuleError(
                    f"{section}: {expression.sql}: the engine cannot tell {first} from {name}",
                    hint="give one of them another name in `map`",
                )
        return used

    def _value(self, section: str, name: str) -> Value:
        if name in self._values:
            return self._values[name]
        alike = [value for known, value in self._values.items() if known.lower() == name.lower()]
        if not alike and self._missing_is_null:
            return Value("NULL", '"NULL"')
        if len(alike) != 1:
            raise unknown_column(section, name, list(self._values))
        return alike[0]

    def _macro(self, alias: str, expression: Expression, used: Mapping[str, Value]) -> str:
        parameters = ", ".join(quoted(name) for name in used)
        self._session.run(f"CREATE OR REPLACE TEMP MACRO {alias}({parameters}) AS ({expression.sql})")
        return f"{alias}({', '.join(value.sql for value in used.values())})"

    def _try(self, alias: str, expression: Expression, call: str, used: Mapping[str, Value]) -> None:
        """Adds a value that may fail.

        A failing row makes the engine go through the 2048 rows around it one by one. So rows that may divide by
        zero get a branch of their own: what it gives is the same.
        """
        attempt = f"TRY({{'v': {call}}})"
        zero = " OR ".join(f"{value.sql} = 0" for value in used.values() if is_numeric(value.type))
        if zero and _MAY_DIVIDE.search(expression.sql):
            attempt = f"CASE WHEN {zero} THEN {attempt} ELSE {attempt} END"
        self._items.append(f"{attempt} AS {alias}")

    def _failure(self, column: str, rule: str, alias: str, says: str, used: Mapping[str, Value]) -> None:
        self._rules.append(Rule(column, rule, f"{alias} IS NULL", says, used=used))


def _for_arrow(value: Value) -> str:
    """A value as SQL that Arrow gets whole: a UUID would become text."""
    return f"CAST({value.sql} AS BLOB)" if value.type == "UUID" else value.sql


def _keys(number: int, value: Value) -> Iterator[str]:
    """What `duplicates` needs to know of a value."""
    key, other = f"system.main.hash({value.sql})", "0"
    if value.type in INTEGERS - {"UBIGINT"}:
        key = f"coalesce(CAST({value.sql} AS BIGINT), 0)"  # in order, if the data is
    elif value.type not in _HASHED_EXACTLY:
        other = f"system.main.hash(reverse(CAST({value.sql} AS VARCHAR)))"
    yield f"{key} AS k{number}"
    yield f"CAST({other} AS UBIGINT) AS h{number}"
    yield f"{value.sql} IS NOT NULL AS n{number}"


def _as_text(value: Value) -> str:
    """A value as text from which CAST(... AS type) brings it back."""
    if _has_json(value.type):
        return f"CASE WHEN {value.sql} IS NOT NULL THEN CAST(to_json({value.sql}) AS VARCHAR) END"
    return f"CAST({value.sql} AS VARCHAR)"


def _has_json(kind: str) -> bool:
    """Whether a nested type has JSON in it: its text does not bring it back, so it is kept as one JSON value."""
    return is_nested(kind) and bool(_JSON.search(kind))


def _source_types(session: Session, schema: pa.Schema) -> dict[str, str]:
    """The DuckDB types of the data's columns.

    Raises:
        RuleError: A column has a type that would not come out of the quarantine as it went in.
    """
    strange = [field for field in schema if _is_strange(field.type)]
    try:
        if not strange:
            return dict(zip(schema.names, session.types(schema, [f"r{n}" for n in range(len(schema))]), strict=True))
    except duckdb.Error:
        strange = [field for field in schema if not _reads(session, field)]
    raise RuleError(
        f"column {strange[0].name} has the type {strange[0].type}, which the rules cannot read exactly",
        hint="read it as another type: leave the column out, or CAST it in the source's query",
    )


def _is_strange(kind: pa.DataType) -> bool:
    """Whether the engine would cut values (nanoseconds), or Arrow cannot pick rows out of such an array."""
    types = pa.types
    if types.is_duration(kind) and kind.unit == "ns":
        return True
    if any(each(kind) for each in (types.is_string_view, types.is_binary_view, types.is_list_view)):
        return True
    return types.is_run_end_encoded(kind) or any(_is_strange(kind.field(n).type) for n in range(kind.num_fields))


def _reads(session: Session, field: pa.Field) -> bool:
    try:
        return bool(session.types(pa.schema([field]), ["r0"]))
    except duckdb.Error:
        return False

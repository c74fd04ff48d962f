"""Random tables, random rules, random dirt: the compiled rules do what the slow ones in `reference` do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.pipeline import Transform
from etl.rules import Rules
from etl.session import Session
from etl.stream import BadRow, Batch, Transformed
from tests.etl import reference
from tests.etl.reference import Expression

settings.register_profile("rules", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rules")


def apply(rules: Rules, rows: pa.RecordBatch, start: int = 0) -> Transformed:
    done = rules.apply(Batch(rows, lambda index: {"record": start + index}))
    assert rows.num_rows == done.good.num_rows + len(done.bad) + done.filtered
    return done


def plain(value: Any) -> Any:
    """Values that are the same have the same plain value: NaN is itself, 0.0 is not -0.0."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return repr(value) if isinstance(value, float) else value


def plain_rows(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [plain(dict(row)) for row in rows]


# --- convert --------------------------------------------------------------------------------------------------

DIGITS = st.from_regex(r"[ \t]?[+-]?[0-9]{0,5}[._]?[0-9]{0,5}([eE][+-]?[0-9]{1,3})?[ \n]?", fullmatch=True)
LONG = st.from_regex(r"-?[0-9]{15,25}(\.[0-9]{0,3}0{0,30})?", fullmatch=True)
EDGES = st.sampled_from(
    [
        *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
        *("9007199254740991", "9007199254740992", "9007199254740993", "1e308", "1e309", "-1e-400", "1e3", "1E-2"),
        *("0x1f", "0b1", "1_000", "1,5", "1'000", ".", "-", "+", "5.", ".5", "00012", "-0", "-0.0", "NaN", "inf", "٣"),
        *("true", "TRUE", "tRuE", "False", "t", "F", "yes", "No", "y", "n", "on", "OFF", "1", "0", "null", "NULL", ""),
    ]
)
DAYS = st.from_regex(r"[0-9]{4}-[01][0-9]-[0-3][0-9]", fullmatch=True)
TIMES = st.from_regex(
    r" ?(2024|1999|0001|0000|9999)-(0[1-9]|1[0-3])-[0-3][0-9][T ]?[0-2][0-9]:[0-6][0-9]"
    r"(:[0-6][0-9](\.[0-9]{1,8}0{0,3})?)?(Z|z| Z|[+-][01][0-9](:?[0-7][0-9])?)?",
    fullmatch=True,
)
MOMENTS = st.sampled_from(
    [
        *("infinity", "-infinity", "epoch", "today", "now", "2024-1-2", "2024-02-30", "2024-02-29", "2023-02-29"),
        *("24-01-02", "0001-01-01 (BC)", "10000-01-01", "2024-01-01 24:00:00", "2024-01-01T12:00:00 Europe/Berlin"),
    ]
)
JSONS = st.sampled_from(
    [
        *('{"a":1}', '{"a":1,"a":2}', '{"a":{"b":[{"c":1,"c":2}]}}', "[1,]", "[NaN]", "-Infinity", "1", '"x"', "nul"),
        *('{"a":"NaN"}', '{"a":1}{', " [1, 2] ", "'x'", "{'a':1}", "01", "[1 2]", '{"\\u0061":1,"a":2}', "1e999", "{}"),
    ]
)
UUIDS = st.uuids().flatmap(
    lambda uuid: st.sampled_from([str(uuid), str(uuid).upper(), uuid.hex, f"{{{uuid}}}", f" {uuid} ", str(uuid)[:-1]])
)
TEXTS = st.one_of(DIGITS, LONG, EDGES, DAYS, TIMES, MOMENTS, JSONS, UUIDS, st.text(max_size=6))

INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3), st.integers(2**53 - 2, 2**53 + 2))
FLOATS = st.one_of(
    st.floats(), st.integers(-(10**6), 10**6).map(lambda n: n / 100), st.integers(-(2**70), 2**70).map(float)
)
DECIMALS = st.decimals(-9_999_999, 9_999_999, allow_nan=False, places=3)
DATES = st.dates(date(1, 1, 1), date(9999, 12, 31))
STAMPS = st.one_of(
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),  # noqa: DTZ001
    DATES.map(lambda day: datetime.combine(day, time())),
)
INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001

TYPED = {
    "text": (pa.string(), TEXTS),
    "int64": (pa.int64(), INTEGERS),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "double": (pa.float64(), FLOATS),
    "decimal": (pa.decimal128(10, 3), DECIMALS),
    "wide": (pa.decimal128(38, 0), st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal)),
    "bool": (pa.bool_(), st.booleans()),
    "date": (pa.date32(), DATES),
    "stamp": (pa.timestamp("us"), STAMPS),
    "instant": (pa.timestamp("us", "UTC"), INSTANTS),
    "uuid": (pa.uuid(), st.uuids()),
}
NUMBERS = ["integer", "number", "decimal(18,2)", "decimal(38,0)", "decimal(5,5)", "decimal(38,20)", "boolean"]
PAIRS = [
    *(("text", target) for target in [*NUMBERS, "string", "date", "timestamp", "timestamptz", "json", "uuid"]),
    *(
        (kind, target)
        for kind in ("int64", "int8", "uint64", "double", "decimal", "wide", "bool")
        for target in NUMBERS
    ),
    *((kind, "string") for kind in TYPED if kind != "double"),
    *((kind, target) for kind in ("date", "stamp") for target in ("date", "timestamp")),
    ("instant", "timestamptz"),
    ("uuid", "uuid"),
]


@cache
def converting(target: str) -> Rules:
    return Rules(Transform.model_validate({"convert": {"value": target}}))


@pytest.fixture(scope="module", autouse=True)
def _close() -> Iterator[None]:
    yield
    for _, target in PAIRS:
        converting(target).close()
    converting.cache_clear()


@pytest.mark.parametrize(("kind", "target"), PAIRS)
def test_a_value_converts_exactly_or_is_quarantined(kind: str, target: str) -> None:
    type_, values = TYPED[kind]

    @given(st.lists(st.none() | values, min_size=1, max_size=40))
    @settings(max_examples=10)
    def check(values: list[Any]) -> None:
        wanted, broken = [], []
        for index, value in enumerate(values):
            try:
                wanted.append({"value": reference.convert(value, target)})
            except reference.BrokenValueError:
                broken.append(index)
        done = apply(converting(target), pa.record_batch([pa.array(values, type_)], names=["value"]))
        assert plain_rows(done.good.to_pylist()) == plain_rows(wanted)
        assert [bad.origin["record"] for bad in done.bad] == broken
        assert all(len(bad.broken) == 1 and bad.broken[0].rule == f"convert: {target}" for bad in done.bad)

    check()


# --- the quarantine -------------------------------------------------------------------------------------------

NASTY = st.text(st.sampled_from("ab,;:=' \"\\()[]{}\n\0é"), max_size=5) | st.sampled_from(["NULL", "null", "\\x00"])
INTERVALS = st.builds(
    lambda months, days, micros: pa.MonthDayNano([months, days, micros * 1000]),
    st.integers(-2000, 2000), st.integers(-5000, 5000), st.integers(-(10**12), 10**12),
)  # fmt: skip
STRUCT = pa.struct([("a b", pa.string()), ("n", pa.list_(pa.float64())), ("w'\"", pa.timestamp("us", "UTC"))])
KEPT = {
    **TYPED,
    "uint8": (pa.uint8(), st.integers(0, 255)),
    "float": (pa.float32(), st.floats(width=32)),
    "nasty": (pa.string(), NASTY),
    "large": (pa.large_string(), NASTY),
    "binary": (pa.binary(), st.binary(max_size=8)),
    "time": (pa.time64("us"), st.times()),
    "time ns": (pa.time64("ns"), st.integers(0, 86_399_999_999_999)),
    "stamp ns": (pa.timestamp("ns"), st.integers(-(2**62), 2**62)),
    "stamp s": (pa.timestamp("s"), st.integers(-(10**10), 10**10)),
    "instant ns": (pa.timestamp("ns", "Europe/Berlin"), st.integers(-(2**62), 2**62)),
    "interval": (pa.month_day_nano_interval(), INTERVALS),
    "duration": (pa.duration("us"), st.timedeltas(timedelta(days=-9999), timedelta(days=9999))),
    "list": (pa.list_(pa.string()), st.lists(st.none() | NASTY, max_size=4)),
    "lists": (pa.list_(pa.list_(pa.binary())), st.lists(st.lists(st.binary(max_size=3), max_size=2), max_size=2)),
    "struct": (
        STRUCT,
        st.fixed_dictionaries(
            {"a b": st.none() | NASTY, "n": st.none() | st.lists(FLOATS, max_size=2), "w'\"": st.none() | INSTANTS}
        ),
    ),
    "map": (
        pa.map_(pa.string(), pa.decimal128(10, 3)),
        st.dictionaries(NASTY, st.none() | DECIMALS, max_size=3).map(lambda pairs: list(pairs.items())),
    ),
    "json": (pa.json_(), JSONS.filter(lambda text: reference._json(text) is not None)),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), NASTY),
}  # fmt: skip


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with closing(Session()) as opened:
        yield opened


@cache
def quarantining() -> Rules:
    return Rules(Transform.model_validate({"validate": {"never": {"required": True}}}))


@pytest.mark.parametrize("kind", KEPT)
def test_a_quarantined_value_comes_back_as_it_was(kind: str, session: Session) -> None:
    type_, values = KEPT[kind]

    @given(st.lists(st.none() | values, min_size=1, max_size=20))
    @settings(max_examples=8)
    def check(values: list[Any]) -> None:
        rows = pa.record_batch({"value": pa.array(values, type_), "never": pa.nulls(len(values), pa.string())})
        bad = apply(quarantining(), rows).bad
        assert len(bad) == len(values)
        texts = pa.record_batch({"text": pa.array([row.row["value"] for row in bad], pa.string())})
        back = session.prepare(f"SELECT CAST(r0 AS {bad[0].types['value']}) FROM rows", texts.schema).table(texts)
        read = session.prepare("SELECT r0 FROM rows", rows.schema).table(rows)
        assert plain_rows(back.rename_columns(["v"]).to_pylist()) == plain_rows(read.rename_columns(["v"]).to_pylist())
        assert back.column(0).null_count == rows.column("value").null_count

    check()


# --- all of it ------------------------------------------------------------------------------------------------

WORDS = ["", "a", "b", "x", "paid", "open", "test", "ab cd", "é", "yes", "no"]
SMALL = [0, 1, 2, 3, 7, -1, 2**62, -(2**63)]
PLACES = [{"city": city, "zip": zip_} for city in [None, *WORDS] for zip_ in [None, *SMALL]]
SOURCE: dict[str, tuple[pa.DataType, Sequence[Any]]] = {
    "id": (pa.string(), ["1", "2", "3", " 3 ", "4.0", "x", "", "1.5", "2e1", "99999999999999999999", "-7"]),
    "qty": (pa.int64(), SMALL),
    "Price $": (pa.decimal128(10, 3), [Decimal("0.000"), Decimal("1.500"), Decimal("2.250"), Decimal("-1.000")]),
    "rate": (pa.float64(), [0.0, -0.0, 1.5, -4.0, math.nan, math.inf, 9.0]),
    "at": (
        pa.string(),
        ["2024-01-01 10:00:00", "2024-01-01T10:00:00", "2024-01-02", "2024-02-30", "2024-01-01T10:00Z"],
    ),
    "day": (pa.date32(), [date(2024, 1, 1), date(2024, 2, 29)]),
    "ok": (pa.bool_(), [True, False]),
    "name": (pa.string(), WORDS),
    "tags": (pa.list_(pa.string()), [[], ["a"], [None, "b"]]),
    "place": (pa.struct([("city", pa.string()), ("zip", pa.int64())]), PLACES),
}
RENAMED = {"id": "key", "qty": "Count", "place.city": "city", "at": "the time", "place.zip": "zip"}
TARGETS = {
    "id": ["integer", "string", "decimal(6,2)", "number"],
    "qty": ["string", "number", "decimal(20,1)", "boolean", "integer"],
    "Price $": ["string", "decimal(10,1)", "integer", "number", "decimal(12,4)"],
    "rate": ["decimal(18,4)", "integer", "number"],
    "at": ["timestamp", "timestamptz", "date", "string"],
    "day": ["timestamp", "string"],
    "name": ["boolean", "json", "date", "string"],
    "ok": ["integer", "string"],
    "place.city": ["boolean", "string"],
    "place.zip": ["integer", "decimal(5,1)"],
}
KINDS = {
    "id": "string", "qty": "integer", "Price $": "decimal", "rate": "number", "at": "string", "day": "date",
    "ok": "boolean", "name": "string", "tags": "list", "place": "struct", "place.city": "string",
    "place.zip": "integer",
}  # fmt: skip
SOME_NUMBERS = st.sampled_from([0, 1, 2, 3, -1])
SOME_WORDS = st.sampled_from(["a", "paid", "1", "yes", "", "2024-01-01 10:00:00"])
COMPARED = {
    "min": SOME_NUMBERS,
    "max": SOME_NUMBERS,
    "in": st.lists(SOME_NUMBERS, min_size=1),
    "not_in": st.lists(SOME_NUMBERS, min_size=1),
}
WRITTEN = {
    "min": SOME_WORDS,
    "max": SOME_WORDS,
    "in": st.lists(SOME_WORDS, min_size=1),
    "not_in": st.lists(SOME_WORDS, min_size=1),
    "min_length": st.integers(0, 3),
    "max_length": st.integers(0, 3),
    "pattern": st.sampled_from(["[a-z]+", ".*", "[0-9.]+", "a|b", "^x$"]),
}
CHECKS = {"integer": COMPARED, "bigint": COMPARED, "decimal": COMPARED, "number": COMPARED, "string": WRITTEN}

TYPES_OF = {
    **{kind: ["integer", "number", "decimal(5,1)", "boolean"] for kind in ("integer", "bigint", "decimal", "number")},
    "string": ["integer", "date", "timestamp", "boolean", "decimal(4,1)", "json", "string"],
    "date": ["date", "timestamp"],
}


@dataclass
class Case:
    """Rules, and rows for them."""

    transform: Transform
    rows: pa.RecordBatch
    mapped: list[dict[str, Any]]
    expressions: tuple[list[Expression], dict[str, Expression], list[Expression]]

    def wanted(self) -> reference.Outcome:
        validations = {
            name: each.model_dump(by_alias=True, exclude_none=True) for name, each in self.transform.checks.items()
        }
        conversions = {name: each.type for name, each in self.transform.convert.items()}
        return reference.run(self.mapped, conversions, validations, *self.expressions)


def quote(name: str) -> str:
    return f'"{name}"'


def on(name: str, function: Callable[[Any], Any]) -> Callable[[reference.Row], Any]:
    """A function of one column, NULL for NULL."""
    return lambda row: None if row[name] is None else function(row[name])


def expressions(kinds: Mapping[str, str]) -> Iterator[Expression]:
    """Expressions over columns of some kinds."""
    for name, kind in kinds.items():
        column = f'"{name}"'
        if kind in {"integer", "bigint"}:
            yield Expression(f"{column} + {column}", on(name, lambda value: reference.bigint(value + value)))
            yield Expression(f"10 / {column}", on(name, lambda value: 10.0 / float(value)))
        if kind == "number":
            yield Expression(f"sqrt({column})", on(name, math.sqrt))
        if kind == "string":
            yield Expression(f"{column} || '!'", on(name, lambda value: value + "!"))
            yield Expression(f"length({column})", on(name, len))


def conditions(kinds: Mapping[str, str]) -> Iterator[Expression]:
    """Predicates over columns of some kinds."""
    for name, kind in kinds.items():
        column = f'"{name}"'
        if kind in {"integer", "bigint"}:
            yield Expression(f"{column} > 1", on(name, lambda value: value > 1))
            yield Expression(f"10 % {column} = 1", on(name, lambda value: math.fmod(10, value) == 1))
        if kind == "string":
            yield Expression(f"{column} <> 'a'", on(name, lambda value: value != "a"))
        if kind == "boolean":
            yield Expression(column, on(name, bool))


def value_at(row: Mapping[str, Any], path: str) -> Any:
    first, _, rest = path.partition(".")
    inner = row[first]
    return inner if not rest or inner is None else inner[rest]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    renamed = {old: RENAMED[old] for old in draw(st.sets(st.sampled_from(list(RENAMED))))}
    closed = bool(renamed) and draw(st.booleans())
    rest = [name for name in SOURCE if name not in renamed]
    named = draw(st.sets(st.sampled_from(rest))) if closed else rest
    places = {name: name for name in named} | {new: old for old, new in renamed.items()}
    convert = {
        name: draw(st.sampled_from(TARGETS[place]))
        for name, place in places.items()
        if place in TARGETS and draw(st.booleans())
    }
    kinds = {name: convert.get(name, KINDS[place]).partition("(")[0] for name, place in places.items()}
    checks = {name: draw(checked(kind)) for name, kind in kinds.items() if draw(st.booleans())}
    mapped_names = [name for name in places if not closed or name in renamed.values() or name in {*convert, *checks}]
    kinds = {name: kinds[name] for name in mapped_names}
    options = list(conditions(kinds))
    expected = draw(st.lists(st.sampled_from(options), max_size=2)) if options else []
    derive: dict[str, Expression] = {}
    for name in draw(st.lists(st.sampled_from(["d1", "D 2", "qty"]), max_size=3, unique=True)):
        if options := list(expressions(kinds)):
            derive[name] = draw(st.sampled_from(options))
            kinds = kinds | {name: derived_kind(derive[name].sql)}
    options = list(conditions(kinds))
    filters = draw(st.lists(st.sampled_from(options), max_size=2)) if options else []
    size = draw(st.integers(0, 40))
    chance = Random(draw(st.integers(0, 2**32)))  # values drawn one by one would take most of the time
    rows = [{name: chance.choice([None, *values]) for name, (_, values) in SOURCE.items()} for _ in range(size)]
    transform = Transform.model_validate(
        {
            "map": renamed | ({} if closed or not renamed else {"*": "*"}),
            "convert": convert,
            "validate": checks,
            "expect": [each.sql for each in expected],
            "derive": {name: each.sql for name, each in derive.items()},
            "filter": [each.sql for each in filters],
        }
    )
    batch = pa.record_batch(
        [pa.array([row[name] for row in rows], SOURCE[name][0]) for name in SOURCE], names=list(SOURCE)
    )
    mapped = [{name: value_at(row, places[name]) for name in mapped_names} for row in rows]
    return Case(transform, batch, mapped, (expected, derive, filters))


def derived_kind(sql: str) -> str:
    if "/" in sql or "sqrt" in sql:
        return "number"
    return "string" if "||" in sql else "integer"


@st.composite
def checked(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    known = CHECKS.get(kind, {})
    chosen = draw(st.sets(st.sampled_from(list(known)))) if known else set()
    found = {name: draw(known[name]) for name in sorted(chosen)}
    unique = kind not in {"list", "struct", "json"} and draw(st.booleans())
    if (types := TYPES_OF.get(kind)) and draw(st.booleans()):
        found["type"] = draw(st.sampled_from(types))
    return found | {"required": draw(st.booleans()), "unique": unique}


def why(bad: BadRow) -> tuple[Any, list[tuple[str, str]]]:
    return bad.origin["record"], sorted((broken.column, broken.rule) for broken in bad.broken)


@given(cases())
@settings(max_examples=100)
def test_rows_fare_as_the_reference_says(case: Case) -> None:
    with closing(Rules(case.transform)) as rules:
        done = apply(rules, case.rows)
    wanted = case.wanted()
    assert plain_rows(done.good.to_pylist()) == plain_rows(wanted.good)
    assert [why(bad) for bad in done.bad] == [(record, sorted(rules)) for record, rules in wanted.bad]
    assert done.filtered == wanted.filtered
    assert all(broken.message for bad in done.bad for broken in bad.broken)


@given(cases(), st.lists(st.integers(0, 40), max_size=5))
@settings(max_examples=40)
def test_how_rows_are_split_into_batches_changes_nothing(case: Case, cuts: list[int]) -> None:
    with closing(Rules(case.transform)) as rules:
        whole = apply(rules, case.rows)
    edges = sorted({0, case.rows.num_rows, *(cut for cut in cuts if cut < case.rows.num_rows)})
    with closing(Rules(case.transform, threads=2)) as rules:
        parts = [apply(rules, case.rows.slice(start, stop - start), start) for start, stop in pairwise(edges)]
    assert all(part.good.schema == whole.good.schema for part in parts)
    assert plain_rows([row for part in parts for row in part.good.to_pylist()]) == plain_rows(whole.good.to_pylist())
    assert [bad for part in parts for bad in part.bad] == list(whole.bad)
    assert sum(part.filtered for part in parts) == whole.filtered

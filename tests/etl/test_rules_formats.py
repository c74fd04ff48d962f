"""`convert` by formats, time zones and decimal signs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.convert import described
from etl.loader import check
from etl.pipeline import Pipeline, Transform
from etl.rules import Rules
from etl.run import run_pipeline
from etl.stream import Batch, Transformed
from tests.etl import reference

BERLIN = "Europe/Berlin"


def local(*parts: int) -> datetime:
    """A time on a clock that does not say where it is."""
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001


def apply(target: Mapping[str, Any], values: Sequence[Any] | pa.Array) -> Transformed:
    with closing(Rules(Transform.model_validate({"convert": {"a": target}}))) as rules:
        return rules.apply(Batch(pa.record_batch({"a": values}), lambda index: {"record": index}))


def converted(target: Mapping[str, Any], *texts: str) -> list[Any]:
    """What texts become; an error's message for those that break the rule."""
    done = apply(target, [*texts])
    good = iter(done.good["a"].to_pylist())
    broken = {bad.origin["record"]: bad.broken[0].message for bad in done.bad}
    return [broken[index] if index in broken else next(good) for index in range(len(texts))]


HELD = [
    ({"type": "date", "format": "%d.%m.%Y"}, "29.02.2024", date(2024, 2, 29)),
    ({"type": "date", "format": "%d.%m.%Y"}, " 1.2.2024\t", date(2024, 2, 1)),
    ({"type": "date", "format": "%Y%m%d"}, "20240203", date(2024, 2, 3)),
    ({"type": "date", "format": "%m/%d/%y"}, "12/31/69", date(1969, 12, 31)),
    ({"type": "date", "format": "%d. %B %Y"}, "5. march 2024", date(2024, 3, 5)),
    ({"type": "date", "format": ["%d.%m.%Y", "%Y-%m-%d"]}, "2024-02-03", date(2024, 2, 3)),
    ({"type": "date", "format": "100%% [%d.%m.%Y]"}, "100% [01.02.2024]", date(2024, 2, 1)),
    ({"type": "timestamp", "format": "%d.%m.%Y %H:%M"}, "01.02.2024 23:59", local(2024, 2, 1, 23, 59)),
    ({"type": "timestamp", "format": "%d.%m.%Y"}, "01.02.2024", local(2024, 2, 1)),
    ({"type": "timestamp", "format": "%b %d %Y %I:%M%p"}, "Feb 01 2024 12:30am", local(2024, 2, 1, 0, 30)),
    (
        {"type": "timestamp", "format": "%Y-%m-%d %H:%M:%S.%f"},
        "2024-02-01 1:02:03.5",
        local(2024, 2, 1, 1, 2, 3, 500000),
    ),
    (
        {"type": "timestamptz", "format": "%d.%m.%Y %H:%M %z"},
        "01.02.2024 10:00 +0230",
        datetime(2024, 2, 1, 7, 30, tzinfo=UTC),
    ),
    (
        {"type": "timestamptz", "format": "%d.%m.%Y %H:%M", "timezone": BERLIN},
        "01.07.2024 10:00",
        datetime(2024, 7, 1, 8, tzinfo=UTC),
    ),
    (
        {"type": "timestamptz", "format": ["%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M%z"], "timezone": BERLIN},
        "01.07.2024 10:00-01",
        datetime(2024, 7, 1, 11, tzinfo=UTC),
    ),
    ({"type": "timestamptz", "timezone": BERLIN}, "2024-07-01T10:00:00", datetime(2024, 7, 1, 8, tzinfo=UTC)),
    ({"type": "timestamptz", "timezone": BERLIN}, "2024-07-01T10:00:00Z", datetime(2024, 7, 1, 10, tzinfo=UTC)),
    ({"type": "timestamptz", "timezone": BERLIN}, "2024-01-01", datetime(2023, 12, 31, 23, tzinfo=UTC)),
    ({"type": "decimal(12,2)", "decimal": ",", "thousands": "."}, "-1.234.567,80", Decimal("-1234567.80")),
    ({"type": "decimal(12,2)", "decimal": ",", "thousands": "."}, "1234567,8", Decimal("1234567.80")),
    ({"type": "decimal(12,2)", "decimal": ","}, ",50", Decimal("0.50")),
    ({"type": "integer", "thousands": "'"}, "1'000", 1000),
    ({"type": "number", "decimal": ","}, "1,5e3", 1500.0),
]


@pytest.mark.parametrize(("target", "text", "value"), HELD)
def test_a_text_is_read_as_the_file_says(target: dict[str, Any], text: str, value: Any) -> None:
    assert converted(target, text) == [value]
    assert apply(target, pa.array([None], pa.string())).good["a"].to_pylist() == [None]


DATE, STAMP, OFFSET = (
    {"type": kind, "format": f"%d.%m.%Y{rest}"}
    for kind, rest in (("date", ""), ("timestamp", " %I:%M %p"), ("timestamptz", " %z"))
)
PLACED = {"type": "timestamptz", "timezone": BERLIN}
REFUSED = [
    *((DATE, text) for text in ["", "30.02.2024", "01.02.24", "2024-02-01", "01.02.0000"]),
    *((DATE, text) for text in ["001.02.2024", "01.02.2024x", "1 .2.2024", "01.02.20240"]),
    *(({"type": "date", "format": "%Y%m%d"}, text) for text in ["2024023", "2024 2 3", "202402030"]),
    *(({"type": "timestamp", "format": "%d.%m.%Y %H:%M"}, text) for text in ["01.02.2024", "01.02.2024 24:00"]),
    *((STAMP, text) for text in ["01.02.2024 13:00 pm", "01.02.2024 0:00 am"]),
    ({"type": "timestamp", "format": "%d.%m.%Y %H:%M:%S.%f"}, "01.02.2024 10:00:00.1234567"),
    *((OFFSET, text) for text in ["01.02.2024", "01.02.2024 +25", "01.02.2024 +0275"]),
    *((PLACED, text) for text in ["2024-03-31T02:30:00", "2024-10-27T02:30:00", "x"]),
    *(({"type": "decimal(12,2)", "decimal": ","}, text) for text in ["1.5", "1.000,5", "1,2,3", ",", "1,239", "NaN"]),
    *(
        ({"type": "decimal(12,2)", "thousands": ","}, text)
        for text in ["1,00", "1,0000", ",100", "1,000,00", "1,000.5.5"]
    ),
]


@pytest.mark.parametrize(("target", "text"), REFUSED)
def test_a_text_that_is_written_otherwise_is_quarantined(target: dict[str, Any], text: str) -> None:
    (message,) = converted(target, text)
    assert message.startswith(f"{text!r} is not ")


def test_the_message_says_how_the_text_should_be_written() -> None:
    assert converted({"type": "date", "format": ["%d.%m.%Y", "%Y-%m-%d"]}, "x") == [
        "'x' is not a date written %d.%m.%Y or %Y-%m-%d"
    ]
    assert converted({"type": "timestamptz", "timezone": BERLIN}, "2024-03-31 02:30") == [
        f"'2024-03-31 02:30' is not {described('TIMESTAMP WITH TIME ZONE')}, or a local time that {BERLIN} has once"
    ]
    assert converted({"type": "decimal(5,2)", "decimal": ",", "thousands": "."}, "1.5") == [
        f"'1.5' is not {described('DECIMAL(5,2)')}, with the decimal sign ',' and groups of thousands by '.'"
    ]


def test_a_timestamp_without_a_zone_gets_one() -> None:
    stamps = pa.array([local(2024, 7, 1, 10), local(2024, 3, 31, 2, 30), None])
    done = apply({"type": "timestamptz", "timezone": BERLIN}, stamps)
    assert done.good["a"].to_pylist() == [datetime(2024, 7, 1, 8, tzinfo=UTC), None]
    assert [bad.origin["record"] for bad in done.bad] == [1]


# --- random texts ---------------------------------------------------------------------------------------------

FORMATS = [
    "%d.%m.%Y",
    "%Y%m%d",
    "%m/%d/%y",
    "%d %b %Y",
    "%B %d, %Y",
    "%Y-%m-%d %H:%M:%S.%f",
    "%d%m%Y%H%M",
    "%I %p %d/%m/%Y",
]
ANY_DAY = st.datetimes(local(1, 1, 1), local(9999, 12, 31))
MANGLED = st.tuples(
    ANY_DAY, st.sampled_from(FORMATS), st.integers(0, 20), st.sampled_from(["", "0", "9", " ", ".", "-", "a"])
)


def written(moment: datetime, form: str, place: int, instead: str) -> str:
    """A moment in a format, with one character changed (or none)."""
    text = moment.strftime(form.replace("%Y", f"{moment.year:04}"))
    return text if place >= len(text) else text[:place] + instead + text[place + 1 :]


@cache
def rules_for(**target: Any) -> Rules:
    return Rules(Transform.model_validate({"convert": {"a": {**target}}}))


@pytest.fixture(scope="module", autouse=True)
def _close() -> Iterator[None]:
    yield
    rules_for.cache_clear()


@pytest.mark.parametrize("form", FORMATS)
def test_formats_mean_what_they_mean_to_python(form: str) -> None:
    @given(st.lists(MANGLED, min_size=1, max_size=40))
    @settings(max_examples=10, deadline=None)
    def compare(mangled: list[tuple[datetime, str, int, str]]) -> None:
        texts = [
            written(moment, form if index % 8 else other, place, instead)
            for index, (moment, other, place, instead) in enumerate(mangled)
        ]
        done = rules_for(type="timestamp", format=form).apply(
            Batch(pa.record_batch({"a": texts}), lambda at: {"record": at})
        )
        wanted = [reference.written_as(text, form) for text in texts]
        assert done.good["a"].to_pylist() == [moment for moment in wanted if moment]
        assert [bad.origin["record"] for bad in done.bad] == [at for at, moment in enumerate(wanted) if not moment]

    compare()


ZONES = [BERLIN, "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia", "UTC"]
"""Until 2023 only: what comes later is in the hands of lawmakers, and the engine's rules are not Python's."""


@pytest.mark.parametrize("zone", ZONES)
def test_a_local_time_is_an_instant_if_the_zone_has_it_once(zone: str) -> None:
    turns = list(transitions(ZoneInfo(zone)))
    near = st.builds(
        lambda turn, minutes: turn + timedelta(minutes=minutes), st.sampled_from(turns), st.integers(-300, 300)
    )
    any_time = st.datetimes(local(1972, 1, 1), local(2023, 12, 31))

    @given(st.lists(near | any_time, min_size=1, max_size=40))
    @settings(max_examples=10, deadline=None)
    def compare(times: list[datetime]) -> None:
        rows = pa.record_batch({"a": pa.array(times, pa.timestamp("us"))})
        done = rules_for(type="timestamptz", timezone=zone).apply(Batch(rows, lambda at: {"record": at}))
        wanted = [reference.instant(each, zone) for each in times]
        assert done.good["a"].to_pylist() == [instant for instant in wanted if instant]
        assert [bad.origin["record"] for bad in done.bad] == [at for at, instant in enumerate(wanted) if not instant]

    compare()


def transitions(zone: ZoneInfo) -> Iterator[datetime]:
    """Local times near which the zone's offset changes."""
    hour = datetime(2005, 1, 1, tzinfo=timezone.utc)  # noqa: UP017
    yield local(2005, 1, 1)
    while hour.year < 2023:
        later = hour + timedelta(hours=6)
        if later.astimezone(zone).utcoffset() != hour.astimezone(zone).utcoffset():
            yield hour.astimezone(zone).replace(tzinfo=None)
        hour = later


# --- files ----------------------------------------------------------------------------------------------------


def test_a_pipeline_reads_what_germans_write(project: Path) -> None:
    (project / "bank.csv").write_text("Betrag;Datum;Zeit\n1.234,50;01.02.2024;2024-07-01 10:00\n1.5;2024-02-01;x\n")
    declared = {
        "name": "bank",
        "description": "Bank",
        "source": {"type": "file", "path": "bank.csv", "delimiter": ";"},
        "transform": {
            "convert": {
                "Betrag": {"type": "decimal(12,2)", "decimal": ",", "thousands": "."},
                "Datum": {"type": "date", "format": "%d.%m.%Y"},
                "Zeit": {"type": "timestamptz", "timezone": BERLIN},
            }
        },
        "destination": {"type": "file", "path": "lake", "write": "append"},
    }
    (project / "bank.yaml").write_text(yaml.safe_dump({key: value for key, value in declared.items() if key != "name"}))
    assert check([project / "bank.yaml"]) == []
    report = run_pipeline(Pipeline.model_validate(declared))
    assert report.preview == [
        {"Betrag": Decimal("1234.50"), "Datum": date(2024, 2, 1), "Zeit": datetime(2024, 7, 1, 8, tzinfo=UTC)}
    ]
    assert [each.rule for each in report.rejected[0].broken] == [
        "convert: decimal(12,2)",
        "convert: date",
        "convert: timestamptz",
    ]


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("dat", "`a` is not a type", "choose string, integer"),
        ({"type": "dat"}, "`type` is not a type", "choose string, integer"),
        ({"typ": "date"}, "unknown key", "did you mean `type`?"),
        ({"type": "date", "format": "%d.%m"}, "`format` is a format that has not day, month and year once each", ""),
        ({"type": "date", "format": ["%d.%m.%Y", "%d.%m.%Y %H"]}, "`format` is a format with a time of day", ""),
        ({"type": "timestamp", "format": "%d.%m.%Y %z"}, "`format` is a format with an offset", ""),
        ({"type": "timestamp", "format": "%a %d.%m.%Y"}, "`format` is a format with %a, which cannot be read", ""),
        ({"type": "timestamp", "format": "%d.%m.%Y %I"}, "`format` is a format with only one of %I and %p", ""),
        ({"type": "integer", "format": "%d.%m.%Y"}, "`format` is not for integer", ""),
        ({"type": "timestamptz", "format": "%d.%m.%Y"}, "`timezone` is missing, and a format has no offset", ""),
        ({"type": "timestamptz", "timezone": "Europe/Brln"}, "`timezone` is not a time zone", "write one like"),
        ({"type": "timestamp", "timezone": "UTC"}, "`timezone` is not for timestamp", "it is for timestamptz"),
        ({"type": "date", "decimal": ","}, "`decimal` is not for date", ""),
        ({"type": "number", "thousands": "."}, "`thousands` is the decimal sign, too", "say `decimal` as well"),
        ({"type": "number", "thousands": ";"}, "`thousands` is not what stands between", ""),
    ],
)
def test_a_mistake_in_a_conversion_is_told(tmp_path: Path, target: Any, message: str, hint: str) -> None:
    file = tmp_path / "bank.yaml"
    declared = {
        "description": "Bank",
        "source": {"type": "file", "path": "no-such.csv"},
        "transform": {"convert": {"a": target}},
        "destination": {"type": "file", "path": "lake", "write": "append"},
    }
    file.write_text(yaml.safe_dump(declared))
    (problem,) = check([file])
    assert problem.message.startswith(message)
    assert hint in problem.hint

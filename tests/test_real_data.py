"""Real public data that nobody here wrote (`bokeh-sampledata`), through whole pipelines into every kind of destination.

What arrives is compared with what pandas and sqlite3 read from the same files.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bokeh_sampledata import package_dir

from etl.destinations import open_destination
from etl.loader import load_pipelines
from etl.pipeline import FileDestination, Pipeline
from etl.run import run_pipeline
from settings import get_settings
from tests.etl.destinations.backends import SQL, Backend, make_backend

DATA = package_dir()
PIPELINES = Path(__file__).parent / "data/pipelines"
Rows = Counter[tuple[Any, ...]]

SQLITE = {"text": "TEXT", "integer": "INTEGER", "number": "REAL", "date": "DATE", "decimal(12,4)": "DECIMAL_TEXT(12,4)"}
DUCKDB = {"text": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "date": "DATE", "decimal(12,4)": "DECIMAL(12,4)"}
POSTGRES = {
    "text": "text",
    "integer": "bigint",
    "number": "double precision",
    "date": "date",
    "decimal(12,4)": "numeric(12,4)",
}
MARIADB = {
    "text": "longtext",
    "integer": "bigint(20)",
    "number": "double",
    "date": "date",
    "decimal(12,4)": "decimal(12,4)",
}
TYPES = {"mariadb": MARIADB, "sqlite": SQLITE, "duckdb": DUCKDB, "parquet": DUCKDB, "postgres": POSTGRES}


@pytest.fixture(params=[*SQL, "parquet"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Each kind of destination; the pipelines' variables name it and the data."""
    place = make_backend(request.param, request)
    monkeypatch.setenv("PIVOTAL_ROOT", str(tmp_path))
    monkeypatch.setenv("DATA", str(DATA))
    monkeypatch.setenv("FILMS_URL", f"sqlite:///{DATA}/movies.db")
    monkeypatch.setenv("WAREHOUSE_URL", place.url)
    get_settings.cache_clear()
    return place


def pipeline(place: Backend, name: str) -> Pipeline:
    """A pipeline of `tests/data/pipelines`; where the place is a folder, it loads into files."""
    declared = next(each for each in load_pipelines(PIPELINES) if each.name == name)
    if place.kind != "parquet":
        return declared
    write = "replace" if declared.destination.write == "replace" else "append"
    folder = FileDestination(type="file", path=f"{place.url}/{name}", format="parquet", write=write)
    return declared.model_copy(update={"destination": folder})


def rows(place: Backend, table: str, columns: Iterable[str]) -> Rows:
    """A table's rows, by a client that shares no code with the engine."""
    names = list(columns)
    quoted = ", ".join(f'"{name}"' for name in names)
    return Counter(tuple(row[name] for name in names) for row in place.query(f"SELECT {quoted} FROM {table}"))


def types(place: Backend, table: str, columns: Iterable[str]) -> dict[str, str]:
    """The types of a table's columns, as the place itself calls them."""
    query = {
        "postgres": "SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute "
        f"WHERE attrelid = '{table}'::regclass AND attnum > 0",
        "mariadb": "SELECT column_name AS name, column_type AS type FROM information_schema.columns "
        f"WHERE table_schema = database() AND table_name = '{table}'",
    }.get(place.kind, f"SELECT name, type FROM pragma_table_info('{table}')")
    found = {row["name"]: row["type"] for row in place.query(query)}
    return {name: found[name] for name in columns}


def kept(place: Backend, expected: Iterable[tuple[Any, ...]]) -> Rows:
    """Rows as a place keeps them: SQLite has no decimals and dates, and keeps them as text."""
    if place.kind != "sqlite":
        return Counter(expected)
    return Counter(
        tuple(str(value) if isinstance(value, Decimal | date) else value for value in row) for row in expected
    )


def assert_same(found: Rows, expected: Rows) -> None:
    missing, extra = expected - found, found - expected
    assert (missing.total(), extra.total()) == (0, 0), (missing.most_common(2), extra.most_common(2))


def csv(name: str) -> pd.DataFrame:
    """A CSV file as pandas reads it, every value as the text that it is."""
    return pd.read_csv(DATA / name, dtype=str, keep_default_na=False)


# --- films: a database --------------------------------------------------------------------------------------------

FILM_TYPES = {
    "film_id": "integer",
    "imdb_id": "text",
    "title": "text",
    "year": "integer",
    "minutes": "integer",
    "released": "date",
    "actors": "text",
    "Rating": "text",
    "Metacritic": "integer",
    "Country": "text",
    "Awards": "text",
    "decade": "integer",
}
RATED_FILMS = """
    SELECT ID, imdbID, Title, Year, CAST(Runtime AS INTEGER), Released, "Cast", Rating, Metacritic, Country, Awards,
           Year / 10 * 10
    FROM omdb WHERE Metacritic IS NOT NULL AND (Rating IS NULL OR Rating NOT IN ('M', 'GP', 'M/PG'))
"""


def films(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(RATED_FILMS).fetchall()
    return [(*row[:5], date.fromisoformat(row[5]), *row[6:]) for row in rows]


def test_films_arrive_as_they_are_and_ratings_of_old_are_set_aside(place: Backend) -> None:
    report = run_pipeline(pipeline(place, "films"))
    expected = films(DATA / "movies.db")
    assert (report.extracted, report.loaded, report.filtered, report.quarantined) == (17472, 6797, 10648, 27)
    assert_same(rows(place, "films", FILM_TYPES), kept(place, expected))
    assert types(place, "films", FILM_TYPES) == {name: TYPES[place.kind][kind] for name, kind in FILM_TYPES.items()}


@pytest.mark.parametrize("place", SQL, indirect=True)
def test_films_that_changed_are_updated_and_the_others_are_left_alone(
    place: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "movies.db"
    shutil.copy(DATA / "movies.db", copy)
    monkeypatch.setenv("FILMS_URL", f"sqlite:///{copy}")
    run_pipeline(pipeline(place, "films"))
    with closing(sqlite3.connect(copy)) as connection, connection:
        changed = connection.execute(
            "UPDATE omdb SET Metacritic = Metacritic + 1 WHERE Metacritic IS NOT NULL AND Year = 2014"
        ).rowcount
        new = connection.execute("UPDATE omdb SET Metacritic = 50 WHERE Metacritic IS NULL AND Year = 2013").rowcount
    report = run_pipeline(pipeline(place, "films"))
    assert (report.inserted, report.updated, report.deduplicated) == (new, changed, 6797 - changed)
    assert_same(rows(place, "films", FILM_TYPES), kept(place, films(copy)))


# --- sales: a CSV file with rows that are broken --------------------------------------------------------------------

SALES_TYPES = {
    "ship_mode": "text",
    "city": "text",
    "postal_code": "text",
    "category": "text",
    "sales": "decimal(12,4)",
    "quantity": "integer",
    "profit": "decimal(12,4)",
}


def test_sales_are_exact_and_damaged_postal_codes_are_set_aside(place: Backend) -> None:
    report = run_pipeline(pipeline(place, "sales"))
    frame = csv("SampleSuperstore.csv.gz")
    damaged = frame[frame["Postal Code"].str.len() != 5]
    sound = frame.drop(damaged.index)
    wanted = sound[sound["Category"] != "Technology"]
    columns = [wanted[name] for name in ("Ship Mode", "City", "Postal Code", "Category", "Sales", "Quantity", "Profit")]
    expected = [(*row[:4], exact(row[4]), int(row[5]), exact(row[6])) for row in zip(*columns, strict=True)]

    assert (report.extracted, report.quarantined) == (len(frame), len(damaged))
    assert (report.loaded, report.filtered) == (len(wanted), len(sound) - len(wanted))
    assert_same(rows(place, "sales", SALES_TYPES), kept(place, expected))
    assert types(place, "sales", SALES_TYPES) == {name: TYPES[place.kind][kind] for name, kind in SALES_TYPES.items()}
    found = rows(place, "sales", ["sales"])
    total = sum(Decimal(value) * count for (value,), count in found.items())
    assert total == sum(map(Decimal, wanted["Sales"]))


def test_a_damaged_row_is_kept_as_it_was_read_with_its_place_and_its_reason(place: Backend) -> None:
    run_pipeline(pipeline(place, "sales"))
    frame = csv("SampleSuperstore.csv.gz")
    damaged = frame[frame["Postal Code"].str.len() != 5]
    quarantine = open_destination(pipeline(place, "sales")).quarantined()
    origins = {int(row.bad.origin["record"]): row.bad for row in quarantine}
    assert [dict(origins[record].row) for record in sorted(origins)] == damaged.to_dict("records")
    assert {(broken.column, broken.rule) for row in quarantine for broken in row.bad.broken} == {
        ("postal_code", "pattern: [0-9]{5}")
    }
    assert {Path(str(row.bad.origin["file"])).name for row in quarantine} == {"SampleSuperstore.csv.gz"}


def exact(text: str) -> Decimal:
    return Decimal(text).quantize(Decimal("0.0001"))


# --- cities, routes, population: CSV files ----------------------------------------------------------------------------


def test_cities_keep_every_bit_of_their_coordinates(place: Backend) -> None:
    report = run_pipeline(pipeline(place, "cities"))
    frame = csv("world_cities.csv.gz")
    expected = zip(frame["name"], map(float, frame["lat"]), map(float, frame["lng"]), strict=True)
    assert (report.extracted, report.loaded) == (len(frame), len(frame))
    assert_same(rows(place, "cities", ["name", "latitude", "longitude"]), Counter(expected))
    assert types(place, "cities", ["name", "latitude"]) == {
        "name": TYPES[place.kind]["text"],
        "latitude": TYPES[place.kind]["number"],
    }


def test_a_file_of_routes_is_loaded_once(place: Backend) -> None:
    first, second = run_pipeline(pipeline(place, "routes")), run_pipeline(pipeline(place, "routes"))
    frame = csv("routes.csv.gz")
    expected = zip(frame["Airline"], frame["Source"], frame["Destination"], map(int, frame["Stops"]), strict=True)
    assert (first.loaded, second.extracted) == (len(frame), 0)
    assert_same(rows(place, "routes", ["airline", "origin", "destination", "stops"]), Counter(expected))


def test_the_worlds_population_adds_up(place: Backend) -> None:
    report = run_pipeline(pipeline(place, "population"))
    frame = pd.read_csv(DATA / "population.csv.gz")
    recent = frame[frame["Year"] >= 2000]
    sums = recent.groupby(["Year", "Sex"])["Value"].agg(["size", "sum"])
    expected = {key: (count, total) for key, count, total in sums.itertuples(name=None)}
    found = place.query("SELECT year, sex, count(*) AS rows_, sum(people) AS people FROM population GROUP BY year, sex")

    assert (report.extracted, report.loaded, report.filtered) == (len(frame), len(recent), len(frame) - len(recent))
    assert {(row["year"], row["sex"]): (row["rows_"], int(row["people"])) for row in found} == expected


# --- medals: a JSON document ------------------------------------------------------------------------------------------


def test_medals_are_found_in_their_records(place: Backend) -> None:
    report = run_pipeline(pipeline(place, "medals"))
    records = json.loads((DATA / "olympics2014.json").read_text())["data"]
    counts = ("gold", "silver", "bronze", "total")
    expected = [(each["abbr"], each["name"], *(each["medals"][name] for name in counts), True) for each in records]

    assert (report.extracted, report.loaded) == (87, 87)
    assert_same(rows(place, "medals", ["code", "country", *counts, "adds_up"]), Counter(expected))

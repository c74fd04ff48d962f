"""CSV, NDJSON and Excel: what is written is read back the same, by our own file source and by others."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import orjson
import pyarrow as pa
import pytest

from errors import DestinationError
from etl.destinations import open_destination
from etl.loader import check
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from etl.stream import Destination
from tests.etl.destinations.backends import load, rows

CONVERSIONS = {
    "id": "bigint",
    "amount": "decimal(38,10)",
    "ratio": "number",
    "paid": "boolean",
    "day": "date",
    "made_at": "timestamp",
    "seen_at": "timestamptz",
    "note": "string",
    "uid": "uuid",
    "doc": "json",
}
ROWS = """
    (9223372036854775807, 1234567890123456789012345678.0123456789, 0.1::DOUBLE + 0.2, true, DATE '2024-02-29',
     TIMESTAMP '2024-01-01 00:00:00', TIMESTAMPTZ '2024-01-01 12:00:00+02', '', '6f1f3a3e-0000-4000-8000-000000000001',
     '{"a": [1.50, null, "x"]}'),
    (-9223372036854775808, -0.0000000001, 1e300, false, DATE '1900-03-01', TIMESTAMP '0001-01-01 00:00:00.000001',
     TIMESTAMPTZ '9999-12-31 23:59:59.999999+00', 'say "hi", ok' || chr(10) || 'second line', NULL,
     '{"b": 12345678901234567890.123}'),
    (0, 0.1, -0.0, NULL, DATE '9999-12-31', TIMESTAMP '1969-12-31 23:59:59.5', NULL, '=1+1', NULL, '12.50'),
    (1, 12.30, 5e-324, NULL, NULL, NULL, NULL, ' blanks ' || chr(9), NULL, NULL),
    (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '[]'),
    (3, 5, 123456789.125, true, NULL, NULL, NULL, '00123', NULL, NULL),
    (4, 999999999999999, 1, true, NULL, NULL, NULL, 'ü🙂 _x000D_ <&> http://example.com', NULL, NULL),
    (5, 99999999999999999, 1, true, NULL, NULL, NULL, '+49 30 -1 @a {=1}', NULL, NULL)
"""


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ({"format": "csv"}, "csv"),
        ({"format": "csv", "compression": "gzip"}, "csv.gz"),
        ({"format": "csv", "compression": "zstd"}, "csv.zst"),
        ({"format": "ndjson"}, "ndjson"),
        ({"format": "ndjson", "compression": "zstd"}, "ndjson.zst"),
        ({"format": "excel"}, "xlsx"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_written_is_read_back_the_same(form: dict[str, str], suffix: str, project: Path) -> None:
    kinds = {"number": "double", "string": "varchar"}
    columns = ", ".join(f"{name} {kinds.get(kind, kind)}" for name, kind in CONVERSIONS.items())
    with duckdb.connect(project / "shop.duckdb") as shop:
        shop.execute("SET TimeZone = 'UTC'")
        shop.execute(f"CREATE TABLE orders ({columns})")
        shop.execute(f"INSERT INTO orders VALUES {ROWS}")
    there = {"type": "file", "path": "out/orders", "write": "replace", **form}
    _run("out", {"type": "database", "connection": "duckdb:///shop.duckdb", "table": "orders"}, there)

    back = {"type": "database", "connection": "duckdb:///shop.duckdb", "table": "back", "write": "replace"}
    report = _run("back", {"type": "file", "path": f"out/orders/*.{suffix}"}, back, {"convert": CONVERSIONS})

    assert [bad.broken for bad in report.rejected] == []
    assert _texts(project, "back") == _texts(project, "orders")


def _run(name: str, source: Any, destination: Any, transform: Any = None) -> Any:
    declared = {"name": name, "description": "A test.", "source": source, "destination": destination}
    return run_pipeline(Pipeline.model_validate({**declared, "transform": transform or {}}))


def _texts(project: Path, table: str) -> list[tuple[Any, ...]]:
    """The rows as text; of JSON what it means, since blanks and digits behind the last are nobody's promise."""
    with duckdb.connect(project / "shop.duckdb") as shop:
        shop.execute("SET TimeZone = 'UTC'")
        found = shop.sql(f"SELECT columns(*)::VARCHAR FROM {table} ORDER BY id").fetchall()
    return [(*row[:-1], row[-1] and json.loads(row[-1])) for row in found]


@pytest.fixture
def destination(tmp_path: Path) -> Callable[..., Destination]:
    """Makes destinations in this test's folder."""

    def make(form: str, **more: object) -> Destination:
        where = {"type": "file", "path": str(tmp_path / "orders"), "format": form, "write": "append", **more}
        source = {"type": "file", "path": "orders.csv"}
        declared = {"name": "orders", "description": "A test.", "source": source, "destination": where}
        return open_destination(Pipeline.model_validate(declared))

    return make


def test_csv_is_plain_and_quotes_only_what_needs_it(destination: Any, tmp_path: Path) -> None:
    texts = ["plain", 'a "quote"', "a,comma", "a\nbreak", "", None]

    load(destination("csv"), rows(**{"id": list(range(6)), "a, text": texts}))

    (file,) = (tmp_path / "orders").glob("*.csv")
    content = file.read_bytes().decode()
    assert content == 'id,"a, text"\n0,plain\n1,"a ""quote"""\n2,"a,comma"\n3,"a\nbreak"\n4,""\n5,\n'
    assert [row[1] for row in csv.reader(io.StringIO(content))][1:] == [text or "" for text in texts]


def test_csv_of_one_column_cannot_have_null(destination: Any) -> None:
    with pytest.raises(DestinationError, match="column note has NULL and is the only one") as error:
        load(destination("csv"), rows(note=["x", None]))

    assert "ndjson" in str(error.value.hint)


def test_csv_cannot_have_nul_characters(destination: Any) -> None:
    with pytest.raises(DestinationError, match="NUL character"):
        load(destination("csv"), rows(id=[1], note=["a\0b"]))


def test_ndjson_has_what_json_has_no_number_for_as_text(destination: Any, tmp_path: Path) -> None:
    load(
        destination("ndjson"),
        rows(
            id=[1, 2, 3],
            ratio=[float("nan"), float("-inf"), 0.5],
            huge=pa.array([2**64 - 1, None, 1], pa.uint64()),
            raw=[b"\x00\xff", b"", None],
            note=["a\0b\u2028", "", None],
        ),
    )

    (file,) = (tmp_path / "orders").glob("*.ndjson")
    assert [orjson.loads(line) for line in file.read_bytes().splitlines()] == [
        {"id": 1, "ratio": "NaN", "huge": 2**64 - 1, "raw": "AP8=", "note": "a\0b\u2028"},
        {"id": 2, "ratio": "-Infinity", "huge": None, "raw": "", "note": ""},
        {"id": 3, "ratio": 0.5, "huge": 1, "raw": None, "note": None},
    ]


def test_ndjson_keeps_lists_and_json_in_one_line(destination: Any, tmp_path: Path) -> None:
    doc = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":\r\n 1}']))

    load(destination("ndjson"), rows(id=[1], items=[[{"a": 1, "b": "x\ny"}]], doc=doc))

    (file,) = (tmp_path / "orders").glob("*.ndjson")
    (line,) = file.read_bytes().splitlines()
    assert orjson.loads(line) == {"id": 1, "items": [{"a": 1, "b": "x\ny"}], "doc": {"a": 1}}


def test_ndjson_refuses_nan_inside_of_a_list(destination: Any) -> None:
    with pytest.raises(DestinationError, match="a list or struct holds NaN or infinity"):
        load(destination("ndjson"), rows(id=[1], ratios=[[0.5, float("nan")]], name=["Infinity"]))


def test_names_that_differ_in_case_only_are_two_columns(destination: Any, tmp_path: Path) -> None:
    load(destination("csv"), rows(a=[1], A=[2]))

    (file,) = (tmp_path / "orders").glob("*.csv")
    assert file.read_text() == "a,A\n1,2\n"


def test_a_column_that_comes_later_starts_the_next_file(destination: Any, tmp_path: Path) -> None:
    load(destination("csv"), rows(id=[1]), rows(id=[2], note=["x"]), rows(id=[3]))

    files = {file.name: file.read_text() for file in (tmp_path / "orders").glob("*.csv")}
    assert files == {"orders-run-1.csv": "id\n1\n", "orders-run-1-2.csv": "id,note\n2,x\n3,\n"}


def _cells(folder: Path) -> list[tuple[Any, ...]]:
    """The cells of the one Excel file, as another library reads them."""
    (file,) = folder.glob("*.xlsx")
    sheet = openpyxl.load_workbook(file).active
    return list(sheet.iter_rows(values_only=True))


def test_excel_has_numbers_dates_and_booleans_where_it_keeps_them_exactly(destination: Any, tmp_path: Path) -> None:
    load(
        destination("excel"),
        rows(
            id=[1, 10**15 + 1, None],
            amount=[Decimal("12.30"), Decimal("1234567890123456.78"), None],
            ratio=[0.1 + 0.2, float("nan"), 1e300],
            paid=[True, False, None],
            day=[date(2024, 2, 29), date(1900, 1, 1), None],
            at=pa.array([1709168523500000, 1704067200000001, None], pa.timestamp("us")),
            seen=pa.array([datetime(2024, 1, 1, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
            items=[[1, 2], [], None],
        ),
    )

    assert _cells(tmp_path / "orders") == [
        ("id", "amount", "ratio", "paid", "day", "at", "seen", "items"),
        (1, 12.3, 0.1 + 0.2, True, datetime.fromisoformat("2024-02-29"),
         datetime.fromisoformat("2024-02-29 01:02:03.5"), "2024-01-01T00:00:00Z", "[1,2]"),
        ("1000000000000001", "1234567890123456.78", "NaN", False, "1900-01-01", "2024-01-01T00:00:00.000001", None,
         "[]"),
        (None, None, 1e300, None, None, None, None, None),
    ]  # fmt: skip


def test_no_text_becomes_a_formula_or_a_link(destination: Any, tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "{=1}", "http://example.com", "=HYPERLINK(A1)"]

    load(destination("excel"), rows(id=list(range(7)), note=texts))

    (file,) = (tmp_path / "orders").glob("*.xlsx")
    sheet: Any = openpyxl.load_workbook(file).active
    assert [(cell.value, cell.data_type, cell.hyperlink) for cell in sheet["B"][1:]] == [(t, "s", None) for t in texts]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": pa.array(range(1_048_576))}, "more than 1,048,575 rows"),
        ({f"c{place}": [1] for place in range(16_385)}, "16385 columns; a sheet has at most 16,384"),
        ({"id": [1], "note": ["x" * 32_768]}, "a text of column note with more than 32,767 characters"),
        ({"id": [1], "note": ["🙂" * 16_384]}, "a text of column note with more than 32,767 characters"),
    ],
    ids=["rows", "columns", "characters", "characters of two"],
)
def test_what_excel_has_no_room_for_is_refused_and_never_cut(
    columns: dict[str, Any], message: str, destination: Any, tmp_path: Path
) -> None:
    with pytest.raises(DestinationError, match=message) as error:
        load(destination("excel"), rows(**columns))

    assert "format: csv" in str(error.value.hint)
    assert not (tmp_path / "orders").exists()


def test_the_longest_text_that_excel_keeps_is_kept(destination: Any, tmp_path: Path) -> None:
    load(destination("excel"), rows(id=[1], note=["x" * 32_767]))

    assert _cells(tmp_path / "orders")[1] == (1, "x" * 32_767)


@pytest.mark.parametrize(("form", "suffix"), [("csv", "csv.gz"), ("ndjson", "ndjson.gz")])
def test_the_same_run_again_replaces_what_it_wrote(form: str, suffix: str, destination: Any, tmp_path: Path) -> None:
    orders = destination(form, compression="gzip")
    load(orders, rows(id=[1]), run_id="run-1")
    load(orders, rows(id=[2]), rows(id=[3], new=["x"]), run_id="run-2")

    load(orders, rows(id=[4]), run_id="run-2")

    files = sorted((tmp_path / "orders").iterdir())
    assert [file.name for file in files] == ["_pivotal", f"orders-run-1.{suffix}", f"orders-run-2.{suffix}"]
    assert b"4" in gzip.decompress(files[2].read_bytes())


def test_a_change_of_format_replaces_the_files_of_the_other(destination: Any, tmp_path: Path) -> None:
    load(destination("csv", write="replace"), rows(id=[1]), run_id="run-1")
    load(destination("parquet", write="replace"), rows(id=[2]), run_id="run-2")

    assert sorted(path.name for path in (tmp_path / "orders").iterdir()) == ["_pivotal", "data.parquet"]


@pytest.mark.parametrize("form", ["parquet", "csv", "ndjson"])
def test_files_are_about_as_large_as_they_should_be(form: str, destination: Any, tmp_path: Path) -> None:
    ids = pa.array(range(300_000))

    loaded = load(destination(form, file_size="500KB"), pa.record_batch({"id": ids, "twice": ids}))

    files = list((tmp_path / "orders").glob(f"*.{form}"))
    assert loaded.inserted == 300_000
    assert len(files) > 2
    assert sorted(file.stat().st_size for file in files)[1] > 500_000  # all but the last
    assert max(file.stat().st_size for file in files) < 1_100_000
    (found,) = duckdb.execute(f"SELECT count(DISTINCT id) FROM '{tmp_path}/orders/*.{form}'").fetchall()
    assert found == (300_000,)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("format: parquet, compression: zstd", "parquet and excel are compressed always"),
        ("format: excel, file_size: 1MB", "leave `file_size` out"),
        ("format: csv, file_size: 64 megabytes", "write a number and a unit: 500KB, 64MB, 1GB"),
        ("format: csv, file_size: 0MB", ""),
        ("format: xls", ""),
    ],
)
def test_what_cannot_work_together_is_refused_before_the_run(wrong: str, hint: str, tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text(
        "description: A test.\nsource: {type: file, path: orders.csv}\n"
        f"destination: {{type: file, path: out, write: append, {wrong}}}\n"
    )

    (problem,) = check([file])

    assert hint in str(problem)
    assert problem.line == 3

"""Sheets of Excel workbooks: every cell exactly, or its row in the quarantine."""

# ruff: noqa: DTZ001  (Excel knows no zones)

from __future__ import annotations

import zipfile
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from xlsxwriter import Workbook

from errors import SourceError
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from etl.sources import excel
from tests.etl.sources.reading import read, source_of


def file(path: str, **options: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, **options}


class Written:
    """A workbook being written: sheets of rows; a cell (value, format) has a number format."""

    def __init__(self, path: Path, **options: Any) -> None:
        self._book = Workbook(path, options)

    def sheet(self, name: str, rows: list[list[Any]], first_row: int = 1) -> Written:
        sheet = self._book.add_worksheet(name)
        for row, cells in enumerate(rows, first_row - 1):
            for column, cell in enumerate(cells):
                value, form = cell if isinstance(cell, tuple) else (cell, "General")
                style = self._book.add_format({"num_format": form})
                if isinstance(value, str) and value.startswith("="):
                    sheet.write_formula(row, column, value, style, "#DIV/0!" if "/0" in value else "#N/A")
                elif isinstance(value, str):
                    sheet.write_string(row, column, value, style)
                elif isinstance(value, datetime | time | timedelta):
                    sheet.write_datetime(row, column, value, style)
                else:
                    sheet.write(row, column, value, style)
        return self

    def close(self) -> None:
        self._book.close()


DAY, MOMENT, CLOCK, SPAN = "yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss.000", "hh:mm:ss", "[h]:mm:ss"


def test_cells_arrive_as_what_they_are(folder: Path) -> None:
    Written(folder / "a.xlsx").sheet(
        "Data",
        [
            ["id", "zip", "amount", "share", "paid", "day", "at", "clock", "span", "nothing"],
            [1, "007", 0.1, (0.125, "0.0%"), True, (datetime(2024, 2, 29), DAY),
             (datetime(2024, 2, 29, 1, 2, 3, 4000), MOMENT), (time(23, 59), CLOCK), (timedelta(hours=30), SPAN), None],
            [-3, " x\ny ", 2, (1, "0%"), False, (datetime(1999, 12, 31), DAY), None, (time(0, 0), CLOCK), None, None],
        ],
    ).close()  # fmt: skip
    result = read(file("a.xlsx"))
    assert result.types == {
        "id": "int64", "zip": "string", "amount": "double", "share": "double", "paid": "bool", "day": "timestamp[us]",
        "at": "timestamp[us]", "clock": "time32[ms]", "span": "duration[ms]", "nothing": "null",
    }  # fmt: skip
    assert [list(row.values()) for row in result.rows] == [
        [1, "007", 0.1, 0.125, True, datetime(2024, 2, 29), datetime(2024, 2, 29, 1, 2, 3, 4000), time(23, 59),
         timedelta(hours=30), None],
        [-3, " x\ny ", 2.0, 1.0, False, datetime(1999, 12, 31), None, time(0, 0), None, None],
    ]  # fmt: skip
    assert result.origins == [{"file": "a.xlsx", "sheet": "Data", "row": row} for row in (2, 3)]
    assert result.bytes_read == (folder / "a.xlsx").stat().st_size
    assert source_of(file("a.xlsx")).columns() == list(result.types)


def test_a_column_of_mixed_cells_is_text_as_one_would_type_it(folder: Path) -> None:
    cells = ["a", 1, 1.5, True, (datetime(2024, 1, 2), DAY), 123456789012345, None]
    Written(folder / "a.xlsx").sheet("S", [["id", "mixed"], *([1, cell] for cell in cells)]).close()
    assert read(file("a.xlsx")).column("mixed") == [
        "a", "1", "1.5", "true", "2024-01-02 00:00:00", "123456789012345", None,
    ]  # fmt: skip


def test_a_workbook_that_counts_days_from_1904_has_the_same_dates(folder: Path) -> None:
    Written(folder / "a.xlsx", date_1904=True).sheet(
        "S", [["day", "clock"], [(datetime(2024, 2, 29), DAY), (time(1, 2, 3), CLOCK)]]
    ).close()
    assert read(file("a.xlsx")).rows == [{"day": datetime(2024, 2, 29), "clock": time(1, 2, 3)}]


def test_a_row_with_an_error_goes_to_the_quarantine(folder: Path) -> None:
    Written(folder / "a.xlsx").sheet(
        "S", [["id", "ratio", "text"], [1, "=1/0", "x"], [2, 0.5, "y"], [3, "=1/0", "=NA()"]]
    ).close()
    result = read(file("a.xlsx"))
    assert result.rows == [{"id": 2, "ratio": 0.5, "text": "y"}]
    assert [bad.origin["row"] for bad in result.bad] == [2, 4]
    assert result.bad[1].row == {"id": "3", "ratio": "#DIV/0!", "text": "#N/A"}
    assert result.broken == [
        "'#DIV/0!' cannot be read as double",
        "'#DIV/0!' cannot be read as double",
        "'#N/A' cannot be read as string",
    ]


def test_sheet_and_header_row_are_chosen_and_empty_rows_are_left_out(folder: Path) -> None:
    rows: list[list[Any]] = [
        ["Report", None],
        [None, None],
        ["id", "text"],
        [1, "a"],
        [None, None],
        [2, "b"],
        [(None, "0"), None],
    ]
    Written(folder / "a.xlsx").sheet("Cover", [["x"]]).sheet("Data 2024", rows).close()
    result = read(file("a.xlsx", sheet="Data 2024", header_row=3))
    assert result.rows == [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]
    assert [origin["row"] for origin in result.origins] == [4, 6]


def test_a_large_sheet_comes_in_batches_with_the_types_of_the_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excel, "BATCH_BYTES", 2000)
    rows: list[list[Any]] = [[row, row] for row in range(2, 1000)]
    Written(folder / "a.xlsx").sheet("S", [["id", "n"], *rows, [1000, "=1/0"]]).close()
    batches = list(source_of(file("a.xlsx")).open(None))
    assert len(batches) > 5
    assert {str(batch.rows.schema.field("n").type) for batch in batches} == {"int64"}
    assert [batch.origin(0)["row"] for batch in batches] == [batch.rows["id"][0].as_py() for batch in batches]
    assert [bad.origin["row"] for batch in batches for bad in batch.bad] == [1000]


def test_numbers_and_dates_of_a_sheet_convert_exactly(folder: Path) -> None:
    rows = [[1, 0.1, (datetime(2024, 1, 2), DAY)], [2, 0.125, (datetime(2024, 1, 3), DAY)]]
    Written(folder / "a.xlsx").sheet("S", [["id", "amount", "paid_on"], *rows]).close()
    destination = {"type": "database", "connection": "duckdb:///o.db", "table": "t", "write": "append"}
    pipeline = Pipeline.model_validate(
        {
            "name": "payments",
            "description": "d",
            "source": file("a.xlsx"),
            "transform": {"convert": {"amount": "decimal(18,2)", "paid_on": "date"}},
            "destination": destination,
        }
    )
    report = run_pipeline(pipeline)
    assert (report.loaded, report.quarantined) == (1, 1)
    assert report.rejected[0].origin == {"file": "a.xlsx", "sheet": "S", "row": 3}
    loaded = read({"type": "database", "connection": "duckdb:///o.db", "table": "t"})
    assert loaded.rows == [{"id": 1, "amount": Decimal("0.10"), "paid_on": date(2024, 1, 2)}]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([["id"], [1]], {"sheet": "No"}, "a.xlsx: has no sheet 'No'\n  hint: its sheets are S, Other"),
        ([["id"], [1]], {"header_row": 5}, "a.xlsx: row 5 is empty: no header"),
        ([], {}, "a.xlsx: row 1 is empty: no header\n  hint: say where it is: `header_row: 3`"),
        ([["id", "id"], [1, 2]], {}, "a.xlsx: the header has 'id' twice"),
        ([[1, 2], [3, 4]], {}, "a.xlsx: has no header; its first line is: 1, 2"),
        ([["id", None, "x"], [1, 2, 3]], {}, "a.xlsx: column 2 has values, but no name in the header: id, x"),
    ],
)
def test_a_sheet_that_cannot_be_read_gives_one_clear_message(
    folder: Path, rows: list[list[Any]], options: dict[str, Any], message: str
) -> None:
    Written(folder / "a.xlsx").sheet("S", rows).sheet("Other", []).close()
    with pytest.raises(SourceError) as caught:
        read(file("a.xlsx", **options))
    assert str(caught.value).startswith(message)


def test_what_is_no_workbook_is_refused(folder: Path) -> None:
    Written(folder / "whole.xlsx").sheet("S", [["id"], [1]]).close()
    cut = (folder / "whole.xlsx").read_bytes()[:-100]
    protected_or_old = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600
    for content in (b"id,text\n", b"", cut, protected_or_old):
        (folder / "a.xlsx").write_bytes(content)
        with pytest.raises(SourceError, match=r"^a\.xlsx: is no \.xlsx file\n  hint: an old \.xls, protected"):
            read(file("a.xlsx"))
    with zipfile.ZipFile(folder / "a.xlsx", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(SourceError, match=r"^a\.xlsx: cannot be read: "):
        read(file("a.xlsx"))


def test_a_sheet_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excel, "_LARGEST", 1 << 20)
    Written(folder / "a.xlsx").sheet("S", [["id"], *([f"{row}" * 10_000] for row in range(1, 150))]).close()
    with pytest.raises(SourceError, match=r"a\.xlsx: a sheet of \d MB is too large; 1 MB of XML is the most"):
        source_of(file("a.xlsx")).open(None)


def test_a_header_without_rows_gives_no_rows(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Written(folder / "a.xlsx").sheet("S", [["id", "text"]]).close()
    assert read(file("a.xlsx")).rows == []
    assert "a.xlsx has a header, but no rows" in caplog.text

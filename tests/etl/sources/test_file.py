from __future__ import annotations

import bz2
import gzip
import json
import os
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import SourceError
from etl.sources import delimited, json_document, lines
from tests.etl.sources.reading import read, source_of
from tests.etl.users import someone_else


def file(path: str, **options: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, **options}


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


# --- CSV --------------------------------------------------------------------------------------------------------


def test_every_value_of_a_csv_is_text_so_leading_zeros_stay(folder: Path) -> None:
    (folder / "a.csv").write_text("id,zip,amount\n1,01234,1.10\n12345678901234567890,x,\n")
    result = read(file("a.csv"))
    assert result.rows == [
        {"id": "1", "zip": "01234", "amount": "1.10"},
        {"id": "12345678901234567890", "zip": "x", "amount": None},
    ]
    assert result.types == {"id": "string", "zip": "string", "amount": "string"}
    assert result.bytes_read == (folder / "a.csv").stat().st_size


def test_an_empty_cell_is_null_and_a_quoted_empty_cell_is_empty_text(folder: Path) -> None:
    (folder / "a.csv").write_text('id,a\n1,\n2,""\n')
    assert read(file("a.csv")).column("a") == [None, ""]


@pytest.mark.parametrize(
    ("name", "pack"), [("a.csv.gz", gzip.compress), ("a.csv.bz2", bz2.compress), ("a.csv.zst", zstd)]
)
def test_compressed_files_are_read_with_the_right_origins(folder: Path, name: str, pack: Any) -> None:
    (folder / name).write_bytes(pack(b"id\n7\n8\n"))
    result = read(file(name))
    assert result.column("id") == ["7", "8"]
    assert result.origins == [{"file": name, "record": 1}, {"file": name, "record": 2}]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig", "utf-16-le"])
def test_encodings_and_byte_order_marks_are_understood(folder: Path, encoding: str) -> None:
    (folder / "a.csv").write_bytes("näme,x\nJürgen,1\n".encode(encoding))
    assert read(file("a.csv", encoding=encoding)).rows == [{"näme": "Jürgen", "x": "1"}]


@pytest.mark.parametrize(
    ("name", "options"), [("a.csv", {"delimiter": ";"}), ("a.csv", {"delimiter": "|"}), ("a.tsv.gz", {})]
)
def test_other_delimiters_are_understood(folder: Path, name: str, options: dict[str, str]) -> None:
    delimiter = options.get("delimiter", "\t")
    content = f"a{delimiter}b\n1,5{delimiter}2\n".encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(file(name, **options)).rows == [{"a": "1,5", "b": "2"}]


def test_quoted_line_breaks_quotes_and_other_line_ends_are_understood(folder: Path) -> None:
    (folder / "a.csv").write_bytes(b'id,text\r\n1,"two\r\nlines, ""quoted"""\r\n2,x\r\n')
    assert read(file("a.csv")).column("text") == ['two\r\nlines, "quoted"', "x"]


def test_a_ragged_line_goes_to_the_quarantine_with_its_record_number_and_text(folder: Path) -> None:
    (folder / "a.csv").write_text('id,text\n1,"two\nlines"\nshort\n2,ok\n\n3,too,long\n4,ok\n')
    result = read(file("a.csv"))
    assert result.column("id") == ["1", "2", "4"]
    assert [origin["record"] for origin in result.origins] == [1, 3, 5]
    assert [(dict(bad.row), bad.types, bad.origin) for bad in result.bad] == [
        ({"line": "short"}, {}, {"file": "a.csv", "record": 2}),
        ({"line": "3,too,long"}, {}, {"file": "a.csv", "record": 4}),
    ]
    assert result.broken == [
        "the record has 1 cell, for 2 columns",
        "the record has 3 cells, for 2 columns",
    ]


def test_a_file_of_nothing_but_ragged_lines_gives_them_in_small_batches(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "_BAD_AT_ONCE", 10)
    (folder / "a.csv").write_text("id,text\n" + "ragged\n" * 95)
    batches = list(source_of(file("a.csv")).open(None))
    assert sum(len(batch.bad) for batch in batches) == 95
    assert max(len(batch.bad) for batch in batches) == 10


def test_the_header_is_all_that_is_needed_to_know_the_columns(folder: Path) -> None:
    (folder / "a.csv").write_text("id,text\n1,x\n")
    assert source_of(file("a.csv")).columns() == ["id", "text"]
    assert source_of(file("b.csv")).columns() is None


def test_a_header_without_rows_gives_no_rows_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for header in ("id,text\n", "id,text", "id,text\n\n\n"):
        (folder / "a.csv").write_text(header)
        assert read(file("a.csv")).rows == []
    assert "a.csv has a header, but no rows" in caplog.text


_CELLS = st.text(st.sampled_from('ab,"\n 0é'), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    records=st.lists(st.lists(_CELLS, min_size=1, max_size=4), max_size=30),
    block=st.integers(150, 400),
)
def test_however_a_csv_is_chopped_each_record_arrives_once_with_its_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch, records: list[list[str]], block: int
) -> None:
    monkeypatch.setattr(delimited, "_BLOCK", block)
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in record) for record in records]
    (folder / "a.csv").write_text("\n".join(["a,b", *lines]) + "\n", newline="")
    result = read(file("a.csv"))
    good = {origin["record"]: list(row.values()) for origin, row in zip(result.origins, result.rows, strict=True)}
    bad = {row.origin["record"]: row.row["line"] for row in result.bad}
    assert good == {number: record for number, record in enumerate(records, 1) if len(record) == 2}
    assert bad == {number: lines[number - 1] for number, record in enumerate(records, 1) if len(record) != 2}


@pytest.mark.parametrize(
    ("content", "options", "rows"),
    [
        ("id,text\n1,'x,y'\n2,'it''s'\n3,''\n", {"quote": "'"}, [["1", "x,y"], ["2", "it's"], ["3", ""]]),
        ('id,text\n1,5" pipe\n', {"quote": None}, [["1", '5" pipe']]),
        ('id,text\n1,"a \\"b\\""\n2,x\\,y\n', {"escape": "\\"}, [["1", 'a "b"'], ["2", "x,y"]]),
        ("1,x\n2,y\n", {"columns": ["id", "text"]}, [["1", "x"], ["2", "y"]]),
        ("Report\n\nid,text\n1,x\n", {"skip": 2}, [["1", "x"]]),
        ("Report\n1,x\n", {"skip": 1, "columns": ["id", "text"]}, [["1", "x"]]),
        ('id,text\n1,NULL\n2,\\N\n3,"NULL"\n4,\n', {"nulls": ["NULL", "\\N"]},
         [["1", None], ["2", None], ["3", "NULL"], ["4", None]]),
    ],
)  # fmt: skip
def test_dialects_are_understood(
    folder: Path, content: str, options: dict[str, Any], rows: list[list[str | None]]
) -> None:
    (folder / "a.csv").write_text(content)
    assert [list(row.values()) for row in read(file("a.csv", **options)).rows] == rows


@pytest.mark.parametrize(
    ("before", "options"),
    [("id,text\n", {}), ("", {"columns": ["id", "text"]}), ("x\n\ny,z\nid,text\n", {"skip": 3}),
     ("x\n", {"skip": 1, "columns": ["id", "text"]})],
)  # fmt: skip
def test_records_count_from_the_first_one_in_every_dialect(folder: Path, before: str, options: dict[str, Any]) -> None:
    (folder / "a.csv").write_text(f"{before}1,x\nragged\n2,y\n")
    result = read(file("a.csv", **options))
    assert [origin["record"] for origin in result.origins] == [1, 3]
    assert [bad.origin["record"] for bad in result.bad] == [2]


# --- JSON -------------------------------------------------------------------------------------------------------


def test_numbers_of_ndjson_stay_exact(folder: Path) -> None:
    (folder / "a.ndjson").write_text('{"n": 12345678901234567890}\n{"n": 0.1}\n{"n": 1.10}\n')
    assert read(file("a.ndjson")).column("n") == [12345678901234567890, Decimal("0.1"), Decimal("1.10")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "not JSON: expected ident at line 1 column 2"),
        ("[1]", "not a JSON object"),
        ('{"a":1,"a":2}', 'not JSON: Detected duplicate key "a"'),
        ('{"a":NaN}', "not JSON"),
        ('{"a":1', "not JSON: EOF"),
        ('{"a":' + "[" * 10_000 + "]" * 10_000 + "}", "not JSON: recursion limit"),
    ],
)
def test_a_line_that_is_no_json_object_goes_to_the_quarantine(folder: Path, line: str, message: str) -> None:
    (folder / "a.ndjson").write_text(f'{{"id":1}}\n\n{line}\n{{"id":2}}')
    result = read(file("a.ndjson"))
    assert result.column("id") == [1, 2]
    assert [origin["record"] for origin in result.origins] == [1, 3]
    assert [(row.row["line"], row.types, row.origin) for row in result.bad] == [
        (line, {}, {"file": "a.ndjson", "record": 2})
    ]
    assert result.broken[0].startswith(message)


@pytest.mark.parametrize("chunk", [7, 100, 1 << 20])
def test_however_ndjson_is_chopped_each_line_arrives_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(lines, "_CHUNK", chunk)
    records = [{"id": number, "text": "é" * (number % 9)} for number in range(50)]
    (folder / "a.jsonl.gz").write_bytes(
        gzip.compress("\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode())
    )
    result = read(file("a.jsonl.gz"))
    assert result.rows == records
    assert [origin["record"] for origin in result.origins] == list(range(1, 51))


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('[{"id":1,"n":1.10},{"id":2,"n":null}]', {}),
        ('{"data":{"items":[{"id":1,"n":1.10},{"id":2}]},"next":null}', {"records": "data.items"}),
    ],
)
def test_a_json_document_is_read_where_its_records_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, options: dict[str, str], chunk: int
) -> None:
    monkeypatch.setattr(json_document, "_CHUNK", chunk)
    (folder / "a.json").write_text(text)
    result = read(file("a.json", **options))
    assert result.rows == [{"id": 1, "n": Decimal("1.10")}, {"id": 2, "n": None}]
    assert result.origins == [{"file": "a.json", "record": 1}, {"file": "a.json", "record": 2}]


def test_what_is_no_object_in_a_json_list_goes_to_the_quarantine(folder: Path) -> None:
    (folder / "a.json").write_text('[{"id":1},[1.10],{"id":2}]')
    result = read(file("a.json"))
    assert result.column("id") == [1, 2]
    assert [origin["record"] for origin in result.origins] == [1, 3]
    assert [(row.row["line"], row.origin["record"]) for row in result.bad] == [("[1.10]", 2)]


# --- Parquet ----------------------------------------------------------------------------------------------------


def test_parquet_keeps_its_types(folder: Path) -> None:
    table = pa.table(
        {"id": [1, 2], "n": pa.array([Decimal("1.10"), None], pa.decimal128(12, 2)), "s": [{"a": 1}, None]}
    )
    pq.write_table(table, folder / "a.parquet")
    result = read(file("a.parquet"))
    assert result.schemas[0] == table.schema
    assert result.rows == table.to_pylist()
    assert result.origins == [{"file": "a.parquet", "record": 1}, {"file": "a.parquet", "record": 2}]
    assert source_of(file("a.parquet")).columns() == ["id", "n", "s"]


def test_parquet_of_wide_rows_comes_in_small_batches(folder: Path) -> None:
    table = pa.table({"text": [os.urandom(50_000).hex() for _ in range(400)]})
    pq.write_table(table, folder / "a.parquet", compression="none", use_dictionary=False)
    batches = list(source_of(file("a.parquet")).open(None))
    assert max(batch.rows.nbytes for batch in batches) < 16 << 20
    assert pa.Table.from_batches([batch.rows for batch in batches]) == table


# --- several files ----------------------------------------------------------------------------------------------


def test_the_files_of_a_glob_are_read_in_order(folder: Path) -> None:
    for name in ("c.csv", "a.csv", "b.csv"):
        (folder / name).write_text(f"id,other\n{name},x\n")
    (folder / "b.csv").write_text("other,id\nx,b.csv\n")
    (folder / "d.txt").write_text("no")
    assert read(file("*.csv")).column("id") == ["a.csv", "b.csv", "c.csv"]


def test_files_with_other_columns_are_refused_before_a_row_is_read(folder: Path) -> None:
    (folder / "a.csv").write_text("id,amount\n1,2\n")
    (folder / "b.csv").write_text("id,total\n1,2\n")
    with pytest.raises(SourceError, match=r"b\.csv: has other columns than a\.csv: lacks amount; has also total"):
        source_of(file("*.csv")).open(None)


def test_parquet_files_with_more_or_fewer_columns_are_refused_by_name(folder: Path) -> None:
    pq.write_table(pa.table({"id": [1], "amount": [1]}), folder / "a.parquet")
    pq.write_table(pa.table({"amount": [1], "id": [1]}), folder / "b.parquet")
    assert read(file("*.parquet")).rows == [{"id": 1, "amount": 1}] * 2
    pq.write_table(pa.table({"id": [1], "total": [1]}), folder / "c.parquet")
    with pytest.raises(
        SourceError, match=r"c\.parquet: has other columns than a\.parquet: lacks amount; has also total"
    ):
        source_of(file("*.parquet")).open(None)


def test_parquet_files_with_other_types_are_refused_by_column(folder: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), folder / "a.parquet")
    pq.write_table(pa.table({"id": ["1"]}), folder / "b.parquet")
    with pytest.raises(SourceError, match=r"b\.parquet: column id is string, in a\.parquet it is int64"):
        source_of(file("*.parquet")).open(None)


def test_each_file_is_loaded_once(folder: Path) -> None:
    source = file("*.csv", incremental=True)
    (folder / "a.csv").write_text("id\n1\n")
    first = read(source)
    (folder / "b.csv").write_text("id\n2\n")
    second = read(source, first.state)
    third = read(source, second.state)
    assert [first.column("id"), second.column("id"), third.column("id")] == [["1"], ["2"], []]
    assert third.state == second.state
    assert json.loads(json.dumps(second.state)) == second.state


def test_a_file_that_grew_is_read_again_and_that_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = file("a.csv", incremental=True)
    (folder / "a.csv").write_text("id\n1\n")
    first = read(source)
    (folder / "a.csv").write_text("id\n1\n2\n")
    assert read(source, first.state).column("id") == ["1", "2"]
    assert "a.csv has changed since it was read" in caplog.text


def test_an_empty_inbox_is_no_mistake_for_a_source_that_waits_for_files(folder: Path) -> None:
    (folder / "inbox").mkdir()
    assert read(file("inbox/*.csv", incremental=True)).rows == []
    with pytest.raises(SourceError, match="no file has such a name"):
        read(file("inbox/*.csv"))
    with pytest.raises(SourceError, match="there is no folder"):
        read(file("outbox/*.csv", incremental=True))


def test_a_file_that_changes_while_it_is_read_fails_the_run(folder: Path) -> None:
    (folder / "a.csv").write_text("id\n1\n")
    batches = iter(source_of(file("a.csv")).open(None))
    next(batches)
    (folder / "a.csv").write_text("id\n1\n2\n")
    with pytest.raises(SourceError, match="has changed while it was read") as caught:
        list(batches)
    assert caught.value.retryable


# --- bad input --------------------------------------------------------------------------------------------------

_GZIP = gzip.compress(b"id,text\n" + b"1,some text\n" * 10_000, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv: is empty, without so much as a header"),
        ("a.csv", b"\n\n", "a.csv: is empty, without so much as a header"),
        ("a.csv", b"id,name,id\n1,2,3\n", "a.csv: the header has 'id' twice: id,"),
        ("a.csv", b"id,,x\n1,2,3\n", "a.csv: column 2 has no name in the header: id,"),
        (
            "a.csv",
            b"1,2.50,2024-01-01\n2,3.50,2024-01-02\n",
            "a.csv: has no header; its first line is: 1, 2.50, 2024-01-01",
        ),
        ("a.csv", b"id,text\n1,a\0b\n", "a.csv: holds a NUL byte near byte 11, so it is no text"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a.csv: holds a NUL byte"),
        ("a.csv", "id,näme\n1,2\n".encode("latin-1"), "a.csv: cannot be decoded"),
        ("a.csv", "id,name\n1,Jürgen\n".encode("latin-1"), "a.csv: cannot be decoded"),
        ("a.csv", b"id,name\n1,2\n" + b"x" * (20 << 20), "a.csv: a record is longer than 8 MB"),
        ("a.csv", b"x" * (9 << 20), "a.csv: the header cannot be read"),
        ("a.csv.gz", _GZIP[:-30], "a.csv.gz: is cut off: its compressed data has no end"),
        ("a.csv.gz", _GZIP[:20], "a.csv.gz: is cut off: its compressed data has no end"),
        ("a.csv.gz", b"id,text\n1,2\n", "a.csv.gz: cannot be decompressed"),
        ("a.csv.bz2", b"id,text\n1,2\n", "a.csv.bz2: cannot be decompressed"),
        ("a.csv.zst", b"id,text\n1,2\n", "a.csv.zst: cannot be decompressed"),
        (
            "a.csv.bz2",
            bz2.compress(b"id\n" + b"1\n" * 10_000)[:-8],
            "a.csv.bz2: is cut off: its compressed data has no",
        ),
        ("a.ndjson.zst", zstd(b'{"id":1}\n' * 10_000)[:-8], "a.ndjson.zst: is cut off: its compressed data has no end"),
        (
            "a.json.gz",
            gzip.compress(b'[{"id":1}]', mtime=0)[:-3],
            "a.json.gz: is cut off: its compressed data has no end",
        ),
        ("a.parquet", b"id,text\n1,2\n", "a.parquet: "),
        ("a.parquet", b"", "a.parquet: "),
        ("a.ndjson", b'{"id":1}\n\0', "a.ndjson: holds a NUL byte"),
        ("a.json", b"", "a.json: not JSON"),
        ("a.json", b'[{"id":1},', "a.json: not JSON"),
        ("a.json", b'[{"id":NaN}]', "a.json: not JSON"),
        ("a.json", b'[{"id":1,"id":2}]', "a.json: record 1: the key 'id' stands twice in one object"),
        ("a.json", b'{"data":[]}', "a.json: is an object, not a list"),
        ("a.json", b"\x89PNG", "a.json: "),
        ("a.dat", b"id\n1\n", "a.dat: its name does not tell its format"),
    ],
)
def test_a_file_that_cannot_be_read_gives_one_clear_message(
    folder: Path, name: str, content: bytes, message: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read(file(name))
    assert str(caught.value).startswith(message)
    assert "Traceback" not in str(caught.value)


def test_json_nested_ten_thousand_deep_is_refused(folder: Path) -> None:
    (folder / "a.json").write_text('[{"a":' + "[" * 10_000 + "]" * 10_000 + "}]")
    with pytest.raises(SourceError, match=r"a\.json: "):
        read(file("a.json"))


def test_a_wrong_records_path_names_what_there_is(folder: Path) -> None:
    (folder / "a.json").write_text('{"data":[],"meta":{}}')
    with pytest.raises(SourceError, match=r"has no list at 'items'") as caught:
        read(file("a.json", records="items"))
    assert "data, meta" in str(caught.value.hint)


@pytest.mark.usefixtures("folder")
def test_a_missing_file_and_a_folder_are_told_apart() -> None:
    with pytest.raises(SourceError, match=r"a\.csv: No such file or directory"):
        read(file("a.csv"))
    with pytest.raises(SourceError, match="is a folder"):
        read(file(".", format="csv"))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["a.csv", "*.csv"])
def test_what_may_not_be_read_is_told_and_is_no_empty_folder(name: str) -> None:
    with TemporaryDirectory() as inbox:  # where others may go, too
        Path(inbox, "a.csv").write_text("id\n1\n")
        Path(inbox).chmod(0)
        with someone_else(), pytest.raises(SourceError, match="Permission denied") as caught:
            read(file(f"{inbox}/{name}", incremental=True))
    assert caught.value.hint == "the user that reads needs the right to"


@pytest.mark.parametrize(
    ("name", "begin", "message"),
    [
        ("a.ndjson", b'{"a":"', "a.ndjson: a line is longer than 1 MB"),
        ("a.json", b'[{"id":1},{"a":"', "a.json: has 1 MB without the end of a record"),
        ("a.json", b'{"a":"', "a.json: has 1 MB without the end of a record"),
        ("a.json", b'[{"a":"', "a.json: has 1 MB without the end of a record"),
    ],
)
def test_a_text_without_an_end_does_not_fill_the_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, begin: bytes, message: str
) -> None:
    monkeypatch.setattr(lines, "_LONGEST", 1 << 20)
    monkeypatch.setattr(json_document, "_LONGEST", 1 << 20)
    (folder / name).write_bytes(begin + b"x" * (12 << 20))
    with pytest.raises(SourceError) as caught:
        read(file(name))
    assert str(caught.value).startswith(message)


def test_a_csv_that_is_not_read_to_its_end_is_let_go_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_LONGEST_PAUSE", 3600)  # who waits for Arrow's thread fails by the test's timeout
    (folder / "a.csv").write_bytes(b"id,text\n" + b"".join(b"%d,%s\n" % (id_, b"x" * 1000) for id_ in range(40_000)))
    for _ in range(10):
        with closing(source_of(file("a.csv")).open(None)) as reading:
            batches = iter(reading)
            assert next(batches).rows.num_rows
            batches.close()  # type: ignore[attr-defined]


def test_an_empty_ndjson_file_has_no_rows(folder: Path) -> None:
    (folder / "a.ndjson").write_bytes(b"")
    assert read(file("a.ndjson")).rows == []

"""Zip archives: each member is read as a file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from xlsxwriter import Workbook

from errors import SourceError
from etl.sources import disk
from integrations.s3 import open_s3
from settings import get_settings
from tests.etl.sources.reading import read, source_of


def file(path: str, **options: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, **options}


def packed(contents: Mapping[str, Any]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return sink.getvalue()


def test_members_are_read_in_order_and_origins_name_archive_and_member(folder: Path) -> None:
    contents = {"b/feb.csv": "id\n2\n", "jan.csv": "id\n1\nx,y\n", "b/": b"", "__MACOSX/._jan.csv": b"\0", "b/.x": b""}
    (folder / "2024.zip").write_bytes(packed(contents))
    result = read(file("*.zip"))
    assert result.column("id") == ["2", "1"]
    assert result.origins == [
        {"file": "2024.zip/b/feb.csv", "record": 1},
        {"file": "2024.zip/jan.csv", "record": 1},
    ]
    assert [bad.origin for bad in result.bad] == [{"file": "2024.zip/jan.csv", "record": 2}]
    assert source_of(file("*.zip")).columns() == ["id"]


def test_members_are_chosen_by_a_glob(folder: Path) -> None:
    (folder / "a.zip").write_bytes(packed({"x/a.csv": "id\n1\n", "b.csv": "id\n2\n", "readme.txt": "hello"}))
    assert read(file("a.zip", members="*.csv")).column("id") == ["2", "1"]
    assert read(file("a.zip", members="x/*")).column("id") == ["1"]
    with pytest.raises(SourceError, match=r"^a\.zip/readme\.txt: its name does not tell its format"):
        read(file("a.zip"))
    with pytest.raises(SourceError, match=r"^a\.zip: holds no file like '\*\.tsv'"):
        read(file("a.zip", members="*.tsv"))


def test_every_format_can_be_in_an_archive(folder: Path) -> None:
    parquet, workbook = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"id": [1]}), parquet)
    with Workbook(workbook) as book:
        book.add_worksheet().write_column("A1", ["id", 1])
    contents = {
        "a.parquet": parquet.getvalue(), "b.xlsx": workbook.getvalue(), "c.ndjson": '{"id":1}', "d.json": '[{"id":1}]',
    }  # fmt: skip
    (folder / "a.zip").write_bytes(packed(contents))
    result = read(file("a.zip"))
    assert result.column("id") == [1, 1, 1, 1]
    assert [origin["file"] for origin in result.origins] == [f"a.zip/{name}" for name in contents]


def test_an_archive_is_loaded_once_and_again_when_it_is_replaced(folder: Path) -> None:
    source = file("*.zip", incremental=True)
    (folder / "a.zip").write_bytes(packed({"a.csv": "id\n1\n", "b.csv": "id\n2\n"}))
    first = read(source)
    second = read(source, first.state)
    (folder / "a.zip").write_bytes(packed({"a.csv": "id\n3\n"}))
    assert [first.column("id"), second.column("id"), read(source, second.state).column("id")] == [["1", "2"], [], ["3"]]


@pytest.mark.usefixtures("folder")
def test_archives_are_read_from_s3_in_pieces(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_S3_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setattr(disk, "_BUFFER", 1 << 10)
    get_settings.cache_clear()
    open_s3().sdk.create_bucket(Bucket="inbox")
    rows = "".join(f"{row * 7919}\n" for row in range(3000))
    content = packed({"a.csv": f"id\n{rows}", "b.csv": "id\n1\n"})
    open_s3().sdk.put_object(Bucket="inbox", Key="in/a.zip", Body=content)
    result = read(file("s3://inbox/in/*.zip"))
    assert len(result.rows) == 3001
    assert result.origins[-1] == {"file": "s3://inbox/in/a.zip/b.csv", "record": 1}


def test_what_cannot_be_unpacked_gives_one_clear_message(folder: Path) -> None:
    whole = packed({"a.csv": b"id,text\n" + b"1,some text\n" * 1000})
    flags = whole.index(b"PK\x01\x02") + 8
    middle = whole.index(b"a.csv") + 20
    for content, message in (
        (whole[:-40], "a.zip: cannot be unpacked: File is not a zip file"),
        (b"id\n1\n", "a.zip: cannot be unpacked: File is not a zip file"),
        (b"", "a.zip: cannot be unpacked: File is not a zip file"),
        (whole[:flags] + b"\x01" + whole[flags + 1 :], "a.zip/a.csv: is encrypted"),
        (whole[:middle] + b"\xff" * 8 + whole[middle + 8 :], "a.zip/a.csv: cannot be unpacked: "),
        (packed({}), "a.zip: holds no file like '*'"),
    ):
        (folder / "a.zip").write_bytes(content)
        with pytest.raises(SourceError) as caught:
            read(file("a.zip"))
        assert str(caught.value).startswith(message)
        assert caught.value.hint

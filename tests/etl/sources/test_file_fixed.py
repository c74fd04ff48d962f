"""Text with columns of a fixed width."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from errors import SourceError
from etl.sources import lines
from tests.etl.sources.reading import read, source_of

FIELDS = {"id": "1-4", "name": "5-12", "flag": 13}


def file(path: str, **options: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, "format": "fixed", "fields": FIELDS, **options}


def test_values_are_text_without_their_padding(folder: Path) -> None:
    (folder / "a.txt").write_text("0001Ann     y\n  12 Bob  B n\n0003         \n")
    result = read(file("a.txt"))
    assert [list(row.values()) for row in result.rows] == [
        ["0001", "Ann", "y"],
        ["12", "Bob  B", "n"],
        ["0003", None, None],
    ]
    assert result.types == {"id": "string", "name": "string", "flag": "string"}
    assert result.origins == [{"file": "a.txt", "record": record} for record in (1, 2, 3)]
    assert source_of(file("a.txt")).columns() == ["id", "name", "flag"]


def test_a_short_line_goes_to_the_quarantine_with_its_number_and_text(folder: Path) -> None:
    (folder / "a.txt").write_text("0001Ann     y\n0002Bob\n\n0003Cleo    n and more\n")
    result = read(file("a.txt"))
    assert result.column("id") == ["0001", "0003"]
    assert [origin["record"] for origin in result.origins] == [1, 3]
    assert [(bad.row, bad.types, bad.origin["record"]) for bad in result.bad] == [({"line": "0002Bob"}, {}, 2)]
    assert result.broken == ["the line has 7 characters, its columns need 13"]


def test_a_column_without_an_end_takes_the_rest_of_the_line(folder: Path) -> None:
    (folder / "a.txt").write_text("1 a long note \n2\n3 \n")
    result = read(file("a.txt", fields={"id": 1, "note": "3-"}))
    assert result.rows == [{"id": "1", "note": "a long note"}]
    assert [bad.row["line"] for bad in result.bad] == ["2", "3 "]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "utf-16"])
def test_places_are_characters_in_every_encoding_and_lines_end_in_either_way(folder: Path, encoding: str) -> None:
    (folder / "a.dat.gz").write_bytes(gzip.compress("Äpfel3\r\nÖl   4\r\n".encode(encoding)))
    result = read(file("a.dat.gz", fields={"what": "1-5", "count": 6}, encoding=encoding))
    assert [list(row.values()) for row in result.rows] == [["Äpfel", "3"], ["Öl", "4"]]


@pytest.mark.parametrize("chunk", [3, 20, 1 << 20])
def test_however_a_file_is_chopped_each_line_arrives_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(lines, "_CHUNK", chunk)
    (folder / "a.txt").write_text("header\nsecond header\n" + "".join(f"{row:04}\n" for row in range(50)))
    result = read(file("a.txt", fields={"id": "1-4"}, skip=2))
    assert result.column("id") == [f"{row:04}" for row in range(50)]
    assert [origin["record"] for origin in result.origins] == list(range(1, 51))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0001\0nn     y\n", "a.txt: holds a NUL byte near byte 4, so it is no text"),
        ("0001Jürgen  y\n".encode("latin-1"), "a.txt: cannot be decoded"),
    ],
)
def test_what_is_no_text_is_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "a.txt").write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read(file("a.txt"))
    assert str(caught.value).startswith(message)


def test_a_file_without_line_ends_does_not_fill_the_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_LONGEST", 8 << 20)
    with (folder / "a.txt").open("wb") as endless:
        for _ in range(40):
            endless.write(b"x" * (1 << 20))
    with pytest.raises(SourceError, match=r"a\.txt: a line is longer than 8 MB\n  hint: is it text with line ends"):
        read(file("a.txt"))

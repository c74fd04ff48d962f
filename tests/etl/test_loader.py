"""Reading pipeline files."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from errors import ConfigError, PivotalError
from etl.loader import check, load_pipelines, read_pipelines, resolve
from etl.pipeline import DatabaseSource, Pipeline, json_schema
from settings import Settings, get_settings

SHIPPED = Path(__file__).parents[2] / "pipelines"
PUBLISHED = Path(__file__).parents[2] / "etl/pipeline.schema.json"

BASE: dict[str, Any] = {
    "description": "Shop orders",
    "source": {"type": "database", "connection": "sqlite:///shop.db", "table": "orders"},
    "destination": {"type": "database", "connection": "sqlite:///out.db", "table": "orders", "write": "append"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where a database that a pipeline names is not."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, name: str, /, **parts: object) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(BASE | parts, sort_keys=False))
    return path


def load(folder: Path, text: str) -> Pipeline:
    (folder / "orders.yaml").write_text(text)
    return load_pipelines(folder)[0]


def mistakes(folder: Path, **parts: object) -> list[tuple[str, str]]:
    """Message and text of every mistake; the text stands in the file where the mistake says it does."""
    path = write(folder, "orders.yaml", **parts)
    lines = path.read_text().splitlines()
    problems = check([path])
    for each in problems:
        line = lines[each.line - 1]
        assert each.text in line
        assert "expression" in each.message or line[each.column - 1 :].lstrip("'\"").startswith(each.text)
    return [(each.message, each.text) for each in problems]


# --- what a file says -----------------------------------------------------------------------------------------


def test_pipelines_come_by_file_name_and_are_named_by_it(folder: Path) -> None:
    write(folder, "b.yaml")
    write(folder, "a.yml")
    write(folder, "c.yaml", name="other")
    write(folder, "ignored.txt")
    assert [pipeline.name for pipeline in load_pipelines(folder)] == ["a", "b", "other"]


def test_values_keep_what_is_written(folder: Path) -> None:
    text = yaml.safe_dump(BASE) + (
        "transform:\n  validate:\n    status: {in: [no, yes, on, true, 1, 1.10, 007, 2024-01-01, '1', null_, 1_000]}\n"
        "    amount: {min: 0.1, max: 12345678901234567890.10}\n"
    )
    checks = load(folder, text).transform.checks
    assert checks["status"].in_ == [
        "no", "yes", "on", True, 1, Decimal("1.10"), "007", "2024-01-01", "1", "null_", "1_000",
    ]  # fmt: skip
    assert str(checks["status"].in_[5]) == "1.10"
    assert (checks["amount"].min, checks["amount"].max) == (Decimal("0.1"), Decimal("12345678901234567890.10"))


def test_keys_are_texts_whatever_they_look_like(folder: Path) -> None:
    text = yaml.safe_dump(BASE) + "transform:\n  convert: {yes: date, 1: string, null: boolean, 1.10: uuid}\n"
    assert list(load(folder, text).transform.convert) == ["yes", "1", "null", "1.10"]


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(folder: Path, change: Any) -> None:
    write(folder, "orders.yaml")
    plain = load_pipelines(folder)
    (folder / "orders.yaml").write_bytes(change((folder / "orders.yaml").read_text()).encode())
    assert load_pipelines(folder) == plain


def test_lines_and_columns_hold_with_windows_line_ends(folder: Path) -> None:
    (folder / "orders.yaml").write_bytes(b"description: x\r\nsource:\r\n  type: nosuch\r\n")
    places = [(each.line, each.column) for each in check([folder])]
    assert places == [(1, 1), (3, 9)]


# --- variables ------------------------------------------------------------------------------------------------


def test_a_pipeline_keeps_the_variables_name_so_that_no_secret_is_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_URL", "postgresql://shop:hunter2@db/shop")
    write(folder, "orders.yaml", source=BASE["source"] | {"connection": "${SHOP_URL}"})
    pipeline = load_pipelines(folder)[0]
    assert isinstance(pipeline.source, DatabaseSource)
    assert "hunter2" not in repr(pipeline) + pipeline.model_dump_json()
    assert resolve(pipeline.source.connection) == "postgresql://shop:hunter2@db/shop"


def test_variables_are_filled_in_from_the_environment_then_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "db")
    monkeypatch.setenv("EMPTY", "")
    assert resolve("a://${HOST}:${PORT:-5432}/${EMPTY}${EMPTY:-x}") == "a://db:5432/x"
    assert resolve("no $variable {here}") == "no $variable {here}"


def test_a_setting_has_its_documented_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("${PIVOTAL_LAKE}/orders") == "data/lake/orders"
    assert resolve("${PIVOTAL_STRIPE_API_KEY:-sandbox}") == "sandbox"
    assert resolve("${PIVOTAL_LAKE:-elsewhere}") == "elsewhere"
    monkeypatch.setenv("PIVOTAL_LAKE", "s3://lake")
    monkeypatch.setenv("PIVOTAL_STRIPE_API_KEY", "sk_live")
    get_settings.cache_clear()
    assert resolve("${PIVOTAL_LAKE} ${PIVOTAL_STRIPE_API_KEY}") == "s3://lake sk_live"


def test_dotenv_gives_what_the_environment_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    monkeypatch.setenv("HOST", "db")
    (folder / ".env").write_text("HOST=other\nSHOP_URL=sqlite:///shop.db\n")
    assert resolve("${HOST} ${SHOP_URL}") == "db sqlite:///shop.db"


def test_a_variable_that_is_gone_at_the_moment_of_use_is_named() -> None:
    with pytest.raises(PivotalError, match="NO_SUCH_NAME is not set"):
        resolve("${NO_SUCH_NAME}")


@pytest.mark.parametrize("name", ["PIVOTAL_PATH", "PIVOTAL_MODEL_FIELDS", "PIVOTAL_STRIPE_API_KEY"])
def test_only_settings_that_have_a_value_are_filled_in(name: str) -> None:
    with pytest.raises(PivotalError, match=f"{name} is not set"):
        resolve(f"${{{name}}}")


def test_what_is_not_a_variable_is_not_filled_in() -> None:
    with pytest.raises(PivotalError, match="starts no variable"):
        resolve("a ${b")


def test_a_misspelt_setting_gets_the_nearest_one(folder: Path) -> None:
    write(folder, "orders.yaml", source=BASE["source"] | {"connection": "${PIVOTAL_WAREHOUS_URL}"})
    assert check([folder])[0].hint.startswith("did you mean `PIVOTAL_WAREHOUSE_URL`?")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"description": "a ${HOME} b"}, ("a variable that is not filled in here", "${HOME}")),
        ({"transform": {"filter": ["a = '${HOME}'"]}}, ("a variable that is not filled in here", "${HOME}")),
        ({"source": BASE["source"] | {"connection": "a${1X}"}}, ("not a variable", "${1X}")),
        ({"source": BASE["source"] | {"connection": "$HOME"}}, ("not a variable", "$HOME")),
        ({"source": BASE["source"] | {"table": "a${X"}}, ("not a variable", "${X")),
    ],
)
def test_variables_stand_where_they_are_filled_in(folder: Path, parts: Any, told: tuple[str, str]) -> None:
    assert mistakes(folder, **parts) == [told]


# --- mistakes -------------------------------------------------------------------------------------------------


def source(**more: object) -> dict[str, object]:
    return {"source": BASE["source"] | more}


def destination(**more: object) -> dict[str, object]:
    return {"destination": BASE["destination"] | more}


def topic(**more: object) -> dict[str, object]:
    return {"destination": {"type": "stream", "brokers": "${BROKERS:-b:9092}", "topic": "shop.orders"} | more}


def transform(**rules: object) -> dict[str, object]:
    return {"transform": rules}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"owners": ["bob"]}, "item 1 of `owners` is not an owner: 'bob'"),
        ({"owners": ["team:a", "a@b"]}, "item 2 of `owners` is not an owner: 'a@b'"),
        ({"owners": "team:data"}, "`owners` is not a list: 'team:data'"),
        ({"description": None}, "`description` has no value"),
        ({"description": " "}, "`description` is empty: ' '"),
        ({"description": 2024}, "`description` is not a text: '2024'"),
        ({"transform": None}, "`transform` has no value"),
        ({"transform": []}, "`transform` is not a mapping"),
        ({"source": "database"}, "`source` is not a mapping: 'database'"),
        ({"source": {}}, "`type` is missing in `source`\n  hint: choose api, database, file"),
        ({"name": "Orders"}, "`name` is not a name: 'Orders'"),
        ({"name": "config"}, "`name` is a word that Dagster and Python keep for themselves: 'config'"),
        ({"group": "a b"}, "`group` is not a name: 'a b'"),
        ({"on_invalid": "ignore"}, "`on_invalid` is not quarantine or fail: 'ignore'"),
        ({"schedule": "@daily"}, "`schedule` is not a cron expression: it has not 5 fields, but 1: '@daily'"),
        ({"schedule": "* * * * * *"}, "`schedule` is not a cron expression: it has not 5 fields, but 6"),
        ({"schedule": "0 0 LW * *"}, "`schedule` is not a cron expression that Dagster knows"),
        ({"schedule": "0 0 * * 5L"}, "`schedule` is not a cron expression that Dagster knows"),
        (topic(topic="shop.*"), "`topic` is not a topic's name: 'shop.*'\n  hint: write one with A-Z"),
        (topic(write="append"), "unknown key: 'write'"),
        (topic(format="avro"), "`format` is not json: 'avro'"),
        (topic(tombstone="gone"), "`tombstone` without `key`: 'gone'\n  hint: add `key: [...]`"),
        (topic(key=["id"], tombstone="id"), "`id` is in `key` or `headers`, too: 'id'\n  hint: name another column"),
        (
            {"source": {"type": "stream", "brokers": "${BROKERS:-b:9092}", "topics": "shop.*"}} | topic(),
            "`shop.orders` is read by the same pipeline (`shop.*`), for ever: 'shop.orders'\n  hint: name another one",
        ),
        (
            topic(key=["id"]) | {"partitions": {"by": "at", "every": "day", "start": "2024-01-01"}},
            "`partitions` beside a topic, which gives nothing back that could be replaced",
        ),
        ({"schedule": "61 * * * *"}, "`schedule` is not a cron expression: bad minute: '61 * * * *'"),
        ({"write": "merge"}, "unknown key: 'write'\n  hint: `write` belongs under `destination`"),
        ({"table": "x"}, "unknown key: 'table'\n  hint: `table` belongs under `source`"),
        ({"filter": ["a"]}, "unknown key: 'filter'\n  hint: `filter` belongs under `transform`"),
        ({"source": {"Type": "database"}}, "unknown key: 'Type'\n  hint: did you mean `type`?"),
        ({"destinaton": {"connection": "${NO_SUCH_NAME}"}}, "unknown key: 'destinaton'\n  hint: did you mean"),
        ({"a:b": None}, "unknown key: 'a:b'\n  hint: write a space after the colon"),
        (source(query="SELECT 1"), "`query` beside `table`: 'SELECT 1'"),
        (source(table=None), "`table` is missing\n  hint: give either `table` or `query`"),
        (source(columns=[]), "`columns` is empty"),
        (source(incremental={"cursor": "at", "lag": "10 min"}), "`lag` is not a duration: '10 min'"),
        (source(incremental={"cursor": "at", "lag": 10}), "`lag` is not a duration: '10'"),
        (source(incremental=True), "`incremental` is not a mapping: 'true'"),
        (
            source(limit=3),
            "unknown key: 'limit'\n  hint: choose type, connection, table, query, columns, filters, incremental",
        ),
        (
            {"source": {"type": "file", "path": "x", "format": "cvs"}},
            "`format` is not csv, fixed, ndjson, json, parquet or excel: 'cvs'",
        ),
        ({"source": {"type": "file", "path": "x", "delimiter": ";;"}}, "`delimiter` is longer than 1: ';;'"),
        ({"source": {"type": "file", "path": "x", "encoding": "utf-9"}}, "`encoding` is not an encoding"),
        (
            {"source": {"type": "file", "path": "x", "incremental": "maybe"}},
            "`incremental` is not true or false: 'maybe'",
        ),
        ({"source": {"type": "api"}}, "`url` is missing in `source`"),
        (
            {"source": {"type": "api", "url": "https://x", "pagination": {"type": "pages"}}},
            "unknown pagination type: 'pages'\n  hint: did you mean `page`?",
        ),
        ({"source": {"type": "api", "url": "https://x", "auth": {"type": "bearer"}}}, "`token` is missing in `auth`"),
        (
            {"source": {"type": "api", "url": "https://x", "pagination": {"type": "offset", "limit": 0}}},
            "`limit` is not more than 0: '0'",
        ),
        (
            {"source": {"type": "api", "url": "https://x", "params": {"a": [1]}}},
            "`a` is neither a number nor a text, true or false",
        ),
        (destination(write="upsert"), "`write` is not append, replace or merge: 'upsert'"),
        (destination(write="append", version="at"), "`version` without `merge`: 'append'"),
        (
            source(incremental={"cursor": "at"}) | destination(write="replace"),
            "`replace` with `incremental` would lose the older rows: 'replace'",
        ),
        (transform(convert={"a": "int"}), "`a` is not a type: 'int'"),
        (transform(convert={"a": "decimal(2,3)"}), "`a` is not a decimal that can be: 'decimal(2,3)'"),
        (transform(convert={"a": "decimal(18"}), "put it in quotes"),
        (transform(derive={"a": 3}), "`a` is not a text: '3'"),
        (transform(derive={"": "1"}), "a key is empty"),
        (transform(filter="a > 1"), "`filter` is not a list: 'a > 1'"),
        (transform(validate={"a": {"requird": True}}), "unknown key: 'requird'\n  hint: did you mean `required`?"),
        (source(filters={"a": {"like": 1}}), "unknown key: 'like'\n  hint: choose =, !=, <, <=, >, >=, in, not_in"),
        (source(filters={"a": {"<": None}}), "`<` is compared with null"),
        (source(filters={"a": {">": [1]}}), "`>` is neither a number nor a text"),
        (source(filters={"a": {"in": 1}}), "`in` is not a list: '1'"),
        (source(filters={"a": []}), "`in` is empty"),
        (transform(validate={"a": {"min_length": -1}}), "`min_length` is less than 0: '-1'"),
        (transform(validate={"a": {"min_length": 1.5}}), "`min_length` is not a whole number: '1.5'"),
        (transform(validate={"a": {"in": []}}), "`in` is empty"),
        (transform(validate={"a": None}), "`a` has no value"),
        (transform(validate={"bool": {"min": [1]}}), "`min` is neither a number nor a text"),
        (transform(validate={"a": {"pattern": "a("}}), "`pattern`: 'a(' is not a regular expression: missing )"),
        (transform(convert={"a": "date"}, validate={"a": {"min": "zero"}}), "`min`: zero is not a date"),
        (
            transform(convert={"a": "date"}, validate={"a": {"pattern": "a"}}),
            "`pattern` is for text, the column is DATE",
        ),
    ],
)
def test_a_mistake_is_told_in_plain_words(folder: Path, parts: Any, told: str) -> None:
    problems = check([write(folder, "orders.yaml", **parts)])
    assert [told in str(problem) for problem in problems] == [True]
    assert "Input should" not in str(problems[0])


def test_a_column_may_be_called_like_a_type(folder: Path) -> None:
    rules = {"validate": {"bool": {"required": True}, "str": {"min": [1]}, "type": {"max": {}}}}
    write(folder, "orders.yaml", transform=rules)
    assert [(each.line, each.column) for each in check([folder])] == [(17, 7), (19, 12)]


def test_a_file_name_that_cannot_name_a_pipeline_is_told(folder: Path) -> None:
    write(folder, "Orders-2.yaml")
    problem = check([folder])[0]
    assert (problem.text, problem.message) == ("Orders-2", "the file's name, which names the pipeline, is not a name")
    write(folder, "Orders-2.yaml", name="orders")
    assert check([folder]) == []


def test_keys_given_twice_are_each_told(folder: Path) -> None:
    write(folder, "orders.yaml")
    with (folder / "orders.yaml").open("a") as file:
        file.write("description: b\ntransform: {derive: {a: '1', a: '2'}}\n")
    told = [str(each) for each in check([folder])]
    assert "orders.yaml:11:1: a key that is given twice, first in line 1: 'description'" in told[0]
    assert "orders.yaml:12:30: a key that is given twice, first in line 12: 'a'" in told[1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"- a\n- b\n", "1:1: the file is a list, not a mapping"),
        (b"description\n", "1:1: the file is a text, not a mapping: 'description'"),
        (b"a: 1\n---\nb: 2\n", "2:1: a second document: '---'"),
        (b"a: \xff\n", "1:4: not UTF-8 text: '0xff'"),
        ("a: é".encode("utf-16"), "1:1: UTF-16 text"),
        (b"a: &x 1\nb: *x\n", "2:4: an alias: '*x'"),
        (b"a: !!python/object:os.system x\n", "1:4: a tag: '!!python/object:os.system x'"),
        (b"? [a]\n: b\n", "1:3: a key that is no text"),
        (b"a: " + b"[" * 200_000, "1:34: nested deeper than 30 levels"),
        (b"a: x\n" * 300_000, "1:1: larger than 1 MiB"),
        (b"*: *\n", "1:2: not YAML: did not find expected alphabetic or numeric character"),
        (b"a: it's: b\n", '1:8: not YAML: mapping values are not allowed in this context: "a: it\'s: b"'),
        (b"a: 'x\n", "not YAML: found unexpected end of stream"),
        (b"# only a comment\n", "1:1: the file is empty"),
        ("a: 1\n\xa0b: 1\nc".encode(), "2:1: a no-break space in the indentation"),
        (b'a: "b\\0"\n', "1:4: a NUL character"),
        (b"a: \x07\n", "1:4: a control character: '\\x07'"),
    ],
)
def test_what_is_no_pipeline_file_is_told_with_its_place(folder: Path, content: bytes, told: str) -> None:
    (folder / "any.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_pipelines(folder)
    assert [f"any.yaml:{told}" in str(each) or told in str(each) for each in caught.value.problems] == [True]


def test_an_unreadable_file_is_told(folder: Path) -> None:
    (folder / "loop.yaml").symlink_to("loop.yaml")
    assert check([folder])[0].message == "cannot be read: too many levels of symbolic links"


def test_a_folder_named_like_a_file_is_told(folder: Path) -> None:
    (folder / "sub.yaml").mkdir()
    assert check([folder])[0].message == "a folder, not a file"


def test_a_broken_file_does_not_hide_the_good_ones(folder: Path) -> None:
    write(folder, "good.yaml")
    (folder / "bad.yaml").write_text("a: [")
    pipelines, problems = read_pipelines([folder])
    assert [pipeline.name for pipeline in pipelines] == ["good"]
    assert [problem.file for problem in problems] == ["bad.yaml"]


def test_neither_of_two_pipelines_with_one_name_is_taken(folder: Path) -> None:
    write(folder, "a.yaml", name="same")
    write(folder, "b.yaml", name="same")
    pipelines, problems = read_pipelines([folder])
    assert (pipelines, len(problems)) == ([], 1)


# --- columns --------------------------------------------------------------------------------------------------

COLUMNS = {"columns": ["id", "amt", "status", "at"]}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (transform(map={"id": "order_id"}, filter=["amount > 1"]), [("there is no such column", "amount")]),
        (transform(map={"id": "order_id", "*": "*"}, filter=["amount > 1"]), []),
        (transform(map={"id": "order_id"}, convert={"amount": "number"}, filter=["AMOUNT > 1"]), []),
        (transform(derive={"a": "x + 1", "b": "a + 1"}, filter=["b > 1"]), []),
        (transform(map={"x": "x"}, derive={"a": "b + 1", "b": "x"}), [("there is no such column", "b")]),
        (source(**COLUMNS) | transform(filter=["amount > 1"]), [("there is no such column", "amount")]),
        (source(**COLUMNS) | transform(map={"idd": "x"}), [("there is no such column", "idd")]),
        (
            source(**COLUMNS) | transform(map={"id": "x", "*": "*"}, filter=["id = 1"]),
            [("there is no such column", "id")],
        ),
        (source(**COLUMNS) | transform(convert={"amount": "number"}), [("there is no such column", "amount")]),
        (
            source(**COLUMNS) | transform(validate={"amt": {"min": 0}, "foo": {"min": 0}}),
            [("there is no such column", "foo")],
        ),
        (source(**COLUMNS, incremental={"cursor": "updated"}, filters={"region": "eu"}), []),  # the table may have them
        (source(**COLUMNS) | destination(write="merge", key=["id", "no"]), [("there is no such column", "no")]),
        (
            transform(map={"id": "id"}) | destination(write="merge", key=["id"], version="at"),
            [("there is no such column", "at")],
        ),
        (transform(map={"id": "id"}, derive={"k": "id + 1"}) | destination(write="merge", key=["k"]), []),
        (destination(write="merge", key=["anything"]), []),
        (
            source(**COLUMNS) | transform(map={"*": "*"}) | topic(key=["no"], headers=["trace"], tombstone="gone"),
            [("there is no such column", name) for name in ("no", "trace", "gone")],
        ),
    ],
)
def test_a_column_that_cannot_exist_is_told(folder: Path, parts: Any, told: list[tuple[str, str]]) -> None:
    assert mistakes(folder, **parts) == told


def test_a_column_that_the_source_itself_names_and_does_not_have_is_told(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "shop.db")) as shop:
        shop.execute("CREATE TABLE orders (id INTEGER, status TEXT)")
    parts = source(
        connection=f"sqlite:///{folder}/shop.db",
        incremental={"cursor": "updated"},
        filters={"id": 1, "stats": {"!=": "paid"}},
    )
    assert mistakes(folder, **parts) == [("there is no such column", "updated"), ("there is no such column", "stats")]


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"convert": {"a": "date"}, "filter": ["a > 5"]}, "Cannot compare values of type DATE and type INTEGER"),
        ({"convert": {"a": "string"}, "derive": {"b": "a + 1"}}, "No function matches"),
        ({"convert": {"a": "integer"}, "derive": {"b": "a + 1"}, "filter": ["b"]}, "not a condition, but a BIGINT"),
        ({"derive": {"b": "upper(a, 1)"}}, "No function matches"),
    ],
)
def test_types_that_do_not_fit_are_told(folder: Path, rules: Any, told: str) -> None:
    assert told in mistakes(folder, transform=rules)[0][0]


def test_expressions_are_read_even_if_the_rest_is_wrong(folder: Path) -> None:
    rules = {"derive": {"a": "b +"}, "filter": "x", "validate": {"a": None}}
    assert [message for message, _ in mistakes(folder, transform=rules, schedule="never")] == [
        'not an expression: syntax error at or near "+"',
        "`filter` is not a list",
        "`a` has no value",
        "`schedule` is not a cron expression: it has not 5 fields, but 1",
    ]


def test_the_place_in_an_expression_is_exact_in_plain_and_quoted_texts(folder: Path) -> None:
    text = yaml.safe_dump(BASE) + (
        'transform:\n  map: {a: a}\n  filter:\n  - a > b\n  - \'a > b\'\n  - "a > b"\n  - "a >\\tb"\n  - >\n    a > b\n'
    )
    (folder / "orders.yaml").write_text(text)
    assert [each.column for each in check([folder])] == [9, 10, 10, 5, 5]


# --- the schema, the load -------------------------------------------------------------------------------------


def test_the_published_schema_is_the_models() -> None:
    assert json.loads(PUBLISHED.read_text()) == json_schema(), "run: python -m etl.pipeline > etl/pipeline.schema.json"


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_schema_and_the_loader_accept_what_ships(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())
    assert [each.name for each in read_pipelines([path])[0]] == [path.stem]


@pytest.mark.parametrize(
    "parts",
    [
        {"x": 1},
        {"owners": ["bob"]},
        {"schedule": "@daily"},
        {"name": "A b"},
        {"source": {"type": "nosuch"}},
        source(incremental={"cursor": "a", "lag": "1"}),
        transform(convert={"a": "int"}),
        destination(write="upsert"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(folder: Path, parts: Any) -> None:
    assert mistakes(folder, **parts)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(BASE | parts, json_schema())


def test_loading_imports_no_engine() -> None:
    """Dagster loads every pipeline at every start."""
    heavy = {"dagster", "duckdb", "numpy", "pandas", "pyarrow", "sqlalchemy", "sqlglot"}
    code = (
        "import sys; from pathlib import Path; from etl.loader import load_pipelines\n"
        "assert load_pipelines(Path('pipelines')); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SHIPPED.parent, capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())

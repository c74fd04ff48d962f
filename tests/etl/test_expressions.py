"""What `derive` and `filter` may say."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.expressions import ExpressionError, columns, parse, result_type


def rows(query: str) -> list[Any]:
    with duckdb.connect() as engine:
        return engine.execute(query).fetchall()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("amount * 1.1", ("amount",)),
        ("status <> 'test'", ("status",)),
        ("CASE WHEN a > 1 THEN b ELSE c END", ("a", "b", "c")),
        ('"Order ID" + 1', ("Order ID",)),
        ("Amount + amount", ("Amount", "amount")),
        ("b + a + b", ("b", "a")),
        ("created_at > now() - INTERVAL 3 DAY", ("created_at",)),
        ("day < current_date", ("day",)),
        ("payload ->> '$.customer.id'", ("payload",)),
        ("payload -> 'id'", ("payload",)),
        ("list_transform(items, lambda x: x.price * rate)", ("items", "rate")),
        ("list_reduce(items, lambda x, y: x + y + z)", ("items", "z")),
        ("[x * rate for x in items if x > low]", ("items", "low", "rate")),
        ("address['city']", ("address",)),
        ("try_cast(a AS DECIMAL(18, 2))", ("a",)),
        ("a -- the rest is a comment", ("a",)),
        ("split_part(email, '@', 2)", ("email",)),
        ("1 + 1", ()),
    ],
)
def test_an_expression_over_the_rows_columns_names_them(text: str, names: tuple[str, ...]) -> None:
    assert sorted(columns(text)) == sorted(names)


def test_columns_come_in_the_order_of_their_first_place() -> None:
    assert list(parse("concat(b, a, b)").offsets.items()) == [("b", 7), ("a", 10)]


def test_places_count_characters_not_bytes() -> None:
    assert parse("'ñandú' || größe").offsets == {"größe": 11}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no expression"),
        (" -- nothing", "there is no expression"),
        ("FROM orders", "there is no expression"),
        ("amount *", "syntax error"),
        ("a; DROP TABLE orders", "more than one expression"),
        ("a; b", "syntax error"),
        ("a, b", "more than one expression"),
        ("a AS b", "more than one expression"),
        ("a b", "more than one expression"),
        ("0x1F", "more than one expression"),
        ("DISTINCT a", "more than one expression"),
        ("a FROM orders", "more than one expression"),
        ("a FROM read_csv('/etc/passwd')", "more than one expression"),
        ("a WHERE b", "more than one expression"),
        ("a LIMIT 1", "more than one expression"),
        ("a UNION SELECT 1", "more than one expression"),
        ("DROP TABLE orders", "syntax error"),
        ("PRAGMA database_list", "more than one expression"),
        ("(SELECT 1)", "a subquery"),
        ("a IN (SELECT b FROM orders)", "a subquery"),
        ("EXISTS (SELECT 1)", "a subquery"),
        ("a = ANY([1])", "a subquery"),
        ("*", "a star"),
        ("COLUMNS('a.*')", "a star"),
        ("upper(*COLUMNS(*))", "a star"),
        ("orders.amount", "a qualified name, orders.amount"),
        ("a.upper()", "a qualified name, a.upper"),
        ("system.main.upper(a)", "a qualified name"),
        ("a = $1", "a parameter"),
        ("a = ?", "a parameter"),
        ("#1", "a column by its position"),
        ("DEFAULT", "more than a value for its own row"),
        ("GROUPING(a)", "more than a value for its own row"),
        ("sum(a)", "calls sum, which looks at other rows"),
        ("count(*)", "calls count, which looks at other rows"),
        ("first(a) FILTER (WHERE b)", "which looks at other rows"),
        ("geomean(a)", "does more than make a value of its own row"),
        ("row_number() OVER ()", "a window function"),
        ("lag(a)", "which looks at other rows"),
        ("unnest(items)", "which reads tables or files"),
        ("regexp_split_to_table(a, ',')", "does more than make a value of its own row"),
        ("read_csv('/etc/passwd')", "which reads tables or files"),
        ("read_text('/etc/passwd')", "which reads tables or files"),
        ("glob('/etc/*')", "which reads tables or files"),
        ("query('SELECT 1')", "which reads tables or files"),
        ("json_serialize_plan('SELECT * FROM read_csv(''/etc/passwd'')')", "depends on more than its arguments"),
        ("json_execute_serialized_sql(a)", "which reads tables or files"),
        ("getenv('HOME')", "there is no function getenv"),
        ("current_setting('temp_directory')", "depends on more than its arguments"),
        ("getvariable('x')", "depends on more than its arguments"),
        ("current_database()", "depends on more than its arguments"),
        ("nextval('numbers')", "depends on more than its arguments"),
        ("random()", "depends on more than its arguments"),
        ("uuid()", "depends on more than its arguments"),
        ("error('stop')", "depends on more than its arguments"),
        ("sleep_ms(1000)", "depends on more than its arguments"),
        ("pg_sleep(1)", "does more than make a value of its own row"),
        ("write_log('x')", "depends on more than its arguments"),
        ("__internal_decompress_string(a)", "depends on more than its arguments"),
        ("http_get('http://example.com')", "there is no function http_get"),
        ("uper(a)", "there is no function uper"),
        ("a\0b", "a character that is no text"),
        ("'\ud800'", "a character that is no text"),
        ("(" * 300 + "a" + ")" * 300, "deeper than 200 levels"),
    ],
)
def test_what_is_more_than_one_value_of_the_row_is_refused(text: str, says: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert says in caught.value.message


def test_a_misspelt_function_gets_the_nearest_one_that_may_be_called() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("1 + uper(a)")
    assert (caught.value.offset, caught.value.hint) == (4, "did you mean `upper`?")


def test_a_syntax_error_is_placed() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("größe + + )")
    assert caught.value.offset == 10


@pytest.mark.parametrize("depth", [150, 199])
def test_deep_expressions_are_read(depth: int) -> None:
    assert columns("NOT " * depth + "a") == ("a",)
    assert columns(" + ".join(["a"] * depth)) == ("a",)


def test_the_engines_own_examples_mean_the_same_after_the_tree() -> None:
    """What runs is written from the tree: for every documented scalar function, it gives what the text gives."""
    query = """
        SELECT DISTINCT unnest(examples) FROM duckdb_functions()
        WHERE function_type IN ('scalar', 'macro') AND coalesce(stability, 'CONSISTENT') = 'CONSISTENT'
    """
    compared = 0
    for (example,) in rows(query):
        try:
            plain, written = rows(f"SELECT {example}"), parse(example).sql
        except (duckdb.Error, ExpressionError):
            continue  # an example that needs a table, or a function that is refused
        assert repr(rows(f"SELECT {written}")) == repr(plain), example
        compared += 1
    assert compared > 300


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("amount * 1.5", "DECIMAL(18,3)"),
        ("amount > 3 AND name LIKE 'x%'", "BOOLEAN"),
        ("Amount > 3", "BOOLEAN"),
        ("CAST(name AS DATE)", "DATE"),
        ("now()", "TIMESTAMP WITH TIME ZONE"),
        ("unknown > 3", None),
        ("date_trunc('month', unknown)", None),
        ("unknown COLLATE nocase", None),
        ("coalesce(unknown, amount)", None),
    ],
)
def test_the_type_is_told_where_the_columns_types_are_known(text: str, kind: str | None) -> None:
    assert result_type(text, {"amount": "DECIMAL(18,2)", "name": "VARCHAR"}) == kind


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name + 1", "No function matches the given name and argument types '+(VARCHAR, INTEGER)'"),
        ("upper(unknown, 3)", "upper(any, INTEGER)"),
        ("day > 5", "Cannot compare values of type DATE and type INTEGER"),
        ("unknown::nosuch", "Type with name nosuch does not exist"),
        ("upper(DISTINCT name)", "upper"),
        ("list_transform(items, x -> x + 1)", "lambda"),
    ],
)
def test_types_that_do_not_fit_are_found_before_a_run(text: str, says: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        result_type(text, {"name": "VARCHAR", "day": "DATE"})
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_the_hint_says_what_a_function_takes() -> None:
    with pytest.raises(ExpressionError) as caught:
        result_type("upper(name, 3)", {})
    assert caught.value.hint == "it takes upper(string VARCHAR) -> VARCHAR"


@pytest.mark.parametrize(
    "text",
    [
        "a + b",
        "a * 1.1",
        "a // 2",
        "-a",
        "a || b",
        "a = 'x'",
        "a > now()",
        "a BETWEEN 1 AND 2",
        "a IN (1, 2)",
        "NOT a",
        "a[1]",
        "a['x']",
        "a[1:2]",
        "a -> 'x'",
        "a ->> '$.x'",
        "a COLLATE nocase",
        "a + INTERVAL 1 DAY",
        "a::JSON",
        "a AT TIME ZONE 'UTC'",
        "date_trunc('month', a)",
        "date_diff('day', a, b)",
        "year(a)",
        "epoch(a)",
        "to_timestamp(a)",
        "strftime(a, '%Y')",
        "strptime(a, '%Y')",
        "round(a, 2)",
        "abs(a)",
        "upper(a)",
        "length(a)",
        "regexp_matches(a, 'x')",
        "list_contains(a, 1)",
        "list_filter(a, lambda x: x > 1)",
        "[x + 1 for x in a]",
        "map_keys(a)",
        "struct_insert(a, x := 1)",
        "struct_extract(a, 'x')",
        "enum_code(a)",
        "json_extract(a, '$.x')",
        "coalesce(a, 0)",
        "nullif(a, b)",
        "CASE WHEN a THEN b ELSE 'x' END",
        "hash(a)",
        "md5(a)",
    ],
)
def test_a_column_of_an_unknown_type_may_be_of_any(text: str) -> None:
    assert result_type(text, {}) is None


@given(st.text() | st.text(alphabet="ab1+*()[]{},;'\"->:=.$?#lambda \n"))
def test_no_text_does_worse_than_an_error_in_our_words(text: str) -> None:
    with suppress(ExpressionError):
        parse(text)

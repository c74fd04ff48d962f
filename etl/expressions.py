"""The expressions of `derive` and `filter`: one scalar SQL expression over the row's own columns, and no more.

The engine's own parser reads them (DuckDB's `json_serialize_sql`), its tree is checked, and the SQL that the engine
gets is written from that tree, never from the text. So what was checked is what runs: there is no second reading
that a trick could fall between, and no dialect translation that changes a meaning.

Which functions may be called is told by the engine's catalogue, by what they depend on:

- scalar functions that always give the same result for the same values, plus the clock (`now`, `current_date`, ...),
  which stands still during a run (`etl.clock`);
- macros whose definition passes the same test;
- `mask`, `hash` and `redact`, which are ours (`etl.privacy`).

Everything else is refused: aggregates and window functions (they look at other rows), table functions (they read
files, the catalogue or other tables), functions that read the process instead of the row (`current_setting`,
`getvariable`, `getenv`), that act (`nextval`, `write_log`, `sleep_ms`, `error`) or that give another value each time
(`random`, `uuid`: a rerun would not end in the same state), and names the engine does not know (it would look for an
extension to install).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from errors import RuleError
from etl import clock
from etl.privacy import HASH_TYPE, MACROS
from etl.quoting import quoted

if TYPE_CHECKING:
    import duckdb

_MAX_DEPTH = 200
_SELECT = "SELECT "
_READS_FILES = {"json_serialize_plan"}  # it plans the query in its argument, and so opens the files named there

_NEEDS_TYPES = (  # what the engine says where only the type of an unknown column is missing
    "Could not choose a best candidate function", "collations are only supported", "must be a STRUCT", "needs an ENUM",
)  # fmt: skip

_ALLOWED = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA",
    "OPERATOR", "TYPE",
}  # fmt: skip
_OWN_ROW = "an expression makes one value from the columns of its own row"
_REFUSED = {
    "SUBQUERY": ("a subquery", _OWN_ROW),
    "WINDOW": ("a window function", _OWN_ROW),
    "STAR": ("a star", "name the columns"),
    "PARAMETER": ("a parameter", "write the value itself"),
    "POSITIONAL_REFERENCE": ("a column by its position", "name the column"),
}


class ExpressionError(RuleError):
    """A text is not one scalar expression over the row's columns.

    Args:
        message: What is wrong.
        offset: Where in the text, in characters from 0.
        hint: As in `PivotalError`.
    """

    def __init__(self, message: str, *, offset: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression.

    Args:
        sql: What the engine is given, in DuckDB's dialect.
        offsets: The row's columns that it names, in order -> where in the text each is first named (characters).
        functions: The functions that it calls, by their names in lower case.
    """

    sql: str
    offsets: Mapping[str, int]
    functions: frozenset[str]

    @property
    def columns(self) -> tuple[str, ...]:
        """The row's columns that it names, each once. DuckDB does not tell upper case from lower."""
        return tuple(self.offsets)


@cache
def parse(text: str) -> Expression:
    """Reads and checks an expression.

    Raises:
        ExpressionError: It is not one scalar expression over the row's own columns.
    """
    tree = _tree(text)
    item = _only_item(text, tree)
    offsets: dict[str, int] = {}
    try:
        for name, position in _columns(item, frozenset()):
            offsets.setdefault(name, _offset(text, position))
    except _Refused as refused:
        raise ExpressionError(refused.message, offset=_offset(text, refused.position), hint=refused.hint) from None
    functions = frozenset(str(node["function_name"]) for node in _nodes(item) if node["class"] == "FUNCTION")
    return Expression(sql=_render(tree), offsets=offsets, functions=functions)


def columns(text: str) -> tuple[str, ...]:
    """The row's columns that an expression names, each once, in order.

    Raises:
        ExpressionError: As in `parse`.
    """
    return parse(text).columns


def result_type(text: str, types: Mapping[str, str]) -> str | None:
    """The type that an expression has, in DuckDB's words; None if it cannot be told.

    Args:
        text: The expression.
        types: Column -> DuckDB type, for the columns whose types are known.

    Raises:
        ExpressionError: It is not an expression, or no value of those types can be given to what it does.
    """
    import duckdb

    expression = parse(text)
    known = {name.lower(): kind for name, kind in types.items()}
    row = ", ".join(
        f"CAST(NULL AS {known[name.lower()]}) AS {quoted(name)}" if name.lower() in known else f"NULL AS {quoted(name)}"
        for name in {name.lower(): name for name in expression.columns}.values()
    )
    try:
        described = _ask(f"DESCRIBE SELECT {expression.sql}" + (f" FROM (SELECT {row})" if row else ""))
    except duckdb.Error as error:
        if not any(message in str(error) for message in _NEEDS_TYPES):
            raise _type_error(error) from None
        return None
    return described[0][1] if all(name.lower() in known for name in expression.columns) else None


# --- what a tree may hold -------------------------------------------------------------------------------------


def _columns(node: dict[str, Any], bound: frozenset[str]) -> Iterator[tuple[str, int]]:
    """The columns below a node, with their positions; `bound` are the parameters of the lambdas around it."""
    if node["class"] == "FUNCTION":
        _check_function(node)
    elif node["class"] not in _ALLOWED or node["type"] == "GROUPING_FUNCTION":
        what, hint = _REFUSED.get(node["class"], ("more than a value for its own row", _OWN_ROW))
        raise _Refused(f"it has {what}", node["query_location"], hint)
    if node["class"] == "COLUMN_REF":
        yield from _column(node, bound)
    elif node.get("syntax_type") == "LAMBDA_KEYWORD":
        parameters = {name.lower() for part in _nodes(node["lhs"]) for name in part.get("column_names", ())}
        yield from _columns(node["expr"], bound | parameters)
    else:
        for child in _children(node):
            yield from _columns(child, bound)


def _column(node: dict[str, Any], bound: frozenset[str]) -> Iterator[tuple[str, int]]:
    first, *fields = node["column_names"]
    if first.lower() in bound:
        return
    if fields:
        hint = f"name the column alone; a field of a nested value is {first}['{fields[0]}']"
        raise _Refused(f"it has a qualified name, {'.'.join(node['column_names'])}", node["query_location"], hint)
    if first.lower() not in clock.WORDS:
        yield first, node["query_location"]


def _check_function(node: dict[str, Any]) -> None:
    name, place = node["function_name"], node["query_location"]
    if node["schema"] or node["catalog"]:
        hint = f"write {name}({node['schema']}{', ...' if node['arguments'] else ''})"
        raise _Refused(f"it calls a function by a qualified name, {node['schema']}.{name}", place, hint)
    if name not in _catalogue():
        raise _Refused(f"there is no function {name}", place, _nearest_function(name))
    if reason := _refusal(name):
        raise _Refused(f"it calls {name.removesuffix('_star')}, {reason}", place, _OWN_ROW)


def _nearest_function(name: str) -> str | None:
    near = (other for other in get_close_matches(name, _catalogue(), 5, 0.7) if not _refusal(other))
    return next((f"did you mean `{other}`?" for other in near), None)


@cache
def _refusal(name: str) -> str | None:
    """Why a function may not be called; None if it may."""
    forms = _catalogue()[name]
    kinds = {form.kind for form in forms}
    if "scalar" in kinds:
        steady = all(form.stability == "CONSISTENT" for form in forms if form.kind == "scalar")
        if name in clock.FUNCTIONS or (steady and name not in _READS_FILES and not name.startswith("__")):
            return None
        return "which depends on more than its arguments"
    if kinds == {"macro"}:
        return next((reason for form in forms if (reason := _macro_refusal(form.definition))), None)
    if kinds & {"aggregate", "window"}:
        return "which looks at other rows"
    return "which reads tables or files"


def _macro_refusal(definition: str) -> str | None:
    try:
        parse(definition)
    except ExpressionError:
        return "which does more than make a value of its own row"
    return None


class _Refused(Exception):  # noqa: N818  (becomes an ExpressionError where the text is known)
    def __init__(self, message: str, position: int, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.position, self.hint = message, position, hint


def _children(value: object) -> Iterator[dict[str, Any]]:
    """The nearest expressions below a part of the tree."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        if isinstance(part, dict) and "class" in part:
            yield part
        else:
            yield from _children(part)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in _children(node):
        yield from _nodes(child)


# --- the engine -----------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    kind: str
    stability: str | None
    definition: str


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    import duckdb

    options: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "enable_external_access": False,
        "max_expression_depth": _MAX_DEPTH,
    }
    engine = duckdb.connect(":memory:", config=options)
    for macro in (*MACROS, HASH_TYPE):
        engine.execute(macro)
    return engine


def _ask(query: str, *values: str) -> list[tuple[Any, ...]]:
    with _engine().cursor() as cursor:
        return cursor.execute(query, values).fetchall()


@cache
def _catalogue() -> Mapping[str, Sequence[_Form]]:
    """The engine's functions, by their names in lower case."""
    forms: dict[str, list[_Form]] = {}
    query = "SELECT DISTINCT lower(function_name), function_type, stability, macro_definition FROM duckdb_functions()"
    for name, *form in _ask(query):
        forms.setdefault(name, []).append(_Form(*form))
    return forms


def _tree(text: str) -> str:
    """The statement `SELECT <text>` as the engine's parser reads it, in JSON."""
    for offset, character in enumerate(text):
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise ExpressionError("it has a character that is no text", offset=offset)
    tree: str = _ask("SELECT json_serialize_sql(?)", _SELECT + text)[0][0]
    return tree


def _only_item(text: str, tree: str) -> dict[str, Any]:
    """The one expression of `SELECT <expression>`, if there is nothing else in the statement."""
    answer = orjson.loads(tree)
    if answer["error"]:
        raise _syntax_error(text, answer)
    nodes = [statement["node"] for statement in answer["statements"]]
    items: list[dict[str, Any]] = nodes[0].get("select_list", [])
    bare = orjson.loads(_tree("1"))["statements"][0]["node"] | {"select_list": items}
    if nodes != [bare] or len(items) != 1 or items[0]["alias"]:
        raise _not_one()
    return items[0]


def _syntax_error(text: str, answer: Mapping[str, str]) -> ExpressionError:
    message = answer["error_message"]
    if "selection list" in message:
        return ExpressionError("there is no expression", hint="write one, such as amount * 1.1")
    if answer["error_type"] == "not implemented":
        return _not_one()
    if "depth limit" in message:
        hint = "split it over several columns of `derive`"
        return ExpressionError(f"it is nested deeper than {_MAX_DEPTH} levels", hint=hint)
    return ExpressionError(message, offset=_offset(text, int(answer.get("position", 0))))


def _not_one() -> ExpressionError:
    hint = "leave out `;`, AS, FROM, WHERE and the like; each expression has its own line"
    return ExpressionError("it is more than one expression", hint=hint)


def _render(tree: str) -> str:
    statement: str = _ask("SELECT json_deserialize_sql(?)", tree)[0][0]
    return statement.removeprefix(_SELECT)


def _type_error(error: duckdb.Error) -> ExpressionError:
    message, *rest = str(error).partition(": ")[2].splitlines()
    plain = message.replace('"NULL"', "any").replace("_LITERAL", "")
    forms = [line.strip() for line in rest if " -> " in line]
    hint = "give the column its type in `convert`, or say CAST(column AS type)" if "cast" in message else None
    if 0 < len(forms) <= 2:
        hint = "it takes " + " or ".join(forms)
    return ExpressionError(plain.removesuffix(" You might need to add explicit type casts."), hint=hint)


def _offset(text: str, position: int) -> int:
    """A byte position in `SELECT <text>`, as a position in the text, in characters; 0 if the engine gave none."""
    raw = text.encode()
    start = position - len(_SELECT)
    return len(raw[:start].decode(errors="ignore")) if 0 <= start <= len(raw) else 0

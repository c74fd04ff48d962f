"""Conditions that a database applies itself, their values bound as parameters, never pasted into SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from errors import SourceError
from etl.pipeline import Filter
from etl.sources.connection import Column, Connection
from etl.variables import resolve


@dataclass(frozen=True, slots=True)
class Condition:
    """What a column's value must be for its row to be read.

    Args:
        column: The column's name.
        operator: =, !=, <, <=, >, >=, in, not_in; between: from one value to before another; between_text: the same
            for moments in text, and whatever does not begin like one.
        values: What it is compared with, as text: one, several for `in` and `not_in`, none for NULL.
    """

    column: str
    operator: str
    values: Sequence[str]


def conditions(filters: Mapping[str, Filter]) -> list[Condition]:
    """The conditions of a pipeline file's `filters`, with its variables filled in."""
    return [
        Condition(column, operator, [_text(each) for each in (value if isinstance(value, list) else [value])])
        if value is not None
        else Condition(column, operator, [])
        for column, each in filters.items()
        for operator, value in each.model_dump(by_alias=True, exclude_unset=True).items()
    ]


class Statement:
    """A SELECT in the making, with the values of its parameters."""

    def __init__(self, connection: Connection) -> None:
        self.values: list[object] = []
        self._connection = connection

    def value(self, column: Column, text: str) -> str:
        """SQL that gives a text as a value comparable with the column."""
        self.values.append(self._connection.bind(column, text))
        return column.typed.format(self._connection.parameter(len(self.values) - 1))

    def condition(self, column: Column, condition: Condition) -> str:
        """SQL that is true where a column's value fits."""
        name, negated = self._connection.quoted(column.name), condition.operator in {"!=", "not_in"}
        if not condition.values:
            return f"{name} IS {'NOT ' if negated else ''}NULL"
        values = [self.value(column, text) for text in condition.values]
        if condition.operator in {"in", "not_in"}:
            return f"{name} {'NOT IN' if negated else 'IN'} ({', '.join(values)})"
        if condition.operator.startswith("between"):
            else_ = f" OR {name} NOT LIKE '____-__-__%'" if condition.operator == "between_text" else ""
            return f"({name} >= {values[0]} AND {name} < {values[1]}{else_})"
        return f"{name} {'<>' if negated else condition.operator} {values[0]}"


def check_values(connection: Connection, column: Column, condition: Condition, key: str) -> None:
    """Lets a condition pass whose values the column could have.

    Args:
        connection: Where the column is.
        column: The column.
        condition: The condition.
        key: The key of the pipeline file that it stands under.

    Raises:
        SourceError: One of them is of another type.
    """
    for text in condition.values:
        statement = Statement(connection)
        try:
            connection.first(f"SELECT {connection.text.format(statement.value(column, text))}", statement.values)
        except SourceError as error:
            if error.retryable:
                raise
            raise SourceError(
                f"{key}: {column.name} {condition.operator} {text!r}: the column holds values of the type "
                f"{column.kind}, and this is none",
                hint="write a value of that type",
            ) from None


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return str(value).lower() if isinstance(value, bool) else resolve(str(value))

"""What a pipeline file may say: the model of one YAML file, with the checks that need no file and no server.

Light on purpose (pydantic only): Dagster's load reads it. Where a mistake stands in the file is the loader's
business (`etl.loader`); expressions are parsed in `etl.expressions`.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

_DURATION = re.compile(r"(\d+)\s*(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_CONVERSION = re.compile(
    r"string|integer|bigint|number|boolean|date|timestamp|json|uuid|decimal\(\s*\d+\s*,\s*\d+\s*\)"
)


def _duration(value: object) -> object:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    raise ValueError("not a duration; write a number and a unit: 90s, 10m, 2h, 1d")


def _cron(value: str) -> str:
    try:
        CronSim(value, datetime(2024, 1, 1))  # noqa: DTZ001  (only the five fields are looked at)
    except CronSimError as error:
        raise ValueError(f"not a cron expression ({error}); write five fields: '*/15 * * * *'") from None
    return value


def _conversion(value: str) -> str:
    if not _CONVERSION.fullmatch(value):
        raise ValueError(
            "not a type; choose string, integer, bigint, number, decimal(p,s), boolean, date, timestamp, json, uuid"
        )
    return value.replace(" ", "")


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=63)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Cron = Annotated[str, AfterValidator(_cron)]
Type = Annotated[str, AfterValidator(_conversion)]
Scalar = bool | int | Decimal | str


class Model(BaseModel):
    """A part of a pipeline file: unknown keys are mistakes, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


# --- source ---------------------------------------------------------------------------------------------------


class Incremental(Model):
    """Read only what is new since the last run, by a column that grows."""

    cursor: Text = Field(description="Column (or field of a record) that grows with every change.")
    lag: Duration | None = Field(None, description="How late a row may arrive: 90s, 10m, 2h, 1d.")
    start: Scalar | date | datetime | None = Field(None, description="Where the first run starts.")


class DatabaseSource(Model):
    """Rows of a table or a query, from any database that SQLAlchemy knows."""

    type: Literal["database"]
    connection: Text = Field(description="SQLAlchemy URL; keep it in the environment: ${SHOP_DATABASE_URL}.")
    table: Text | None = Field(None, description="Table or view, with its schema where it has one.")
    query: Text | None = Field(None, description="One SELECT, instead of a table.")
    columns: list[Text] | None = Field(None, description="Columns to read; all if not given.")
    incremental: Incremental | None = None

    @model_validator(mode="after")
    def _table_or_query(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either `table` or `query`")
        return self


class FileSource(Model):
    """Files, local, by path or glob."""

    type: Literal["file"]
    path: Text = Field(description="Path or glob, relative to the project: inbox/payments-*.csv.gz.")
    format: Literal["csv", "ndjson", "json", "parquet"] | None = Field(
        None, description="Told by the name if not given."
    )
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = Field(",", description="CSV only.")
    encoding: Text = Field("utf-8", description="CSV only.")
    incremental: bool = Field(False, description="Load each file (path, size, modification time) once.")


class ApiIncremental(Incremental):
    """As for databases; the cursor is also sent to the API so that it answers with new records only."""

    param: Text = Field(description="Query parameter that takes the cursor: created[gte].")


class PagePagination(Model):
    """`?page=1`, `?page=2`, ... until a page has no records."""

    type: Literal["page"]
    param: Text = "page"
    start: int = 1


class OffsetPagination(Model):
    """`?offset=0`, `?offset=100`, ... until a page has fewer records than `limit`."""

    type: Literal["offset"]
    param: Text = "offset"
    limit: int = Field(100, gt=0)
    limit_param: Text = "limit"


class CursorPagination(Model):
    """The answer says where the next page starts."""

    type: Literal["cursor"]
    param: Text = Field(description="Query parameter that takes the cursor: starting_after.")
    path: Text = Field(description="Where the answer has it: next_cursor, data.-1.id (the last record's id).")
    more: Text | None = Field(
        None, description="Field of the answer that is true while there are more pages: has_more."
    )


class LinkPagination(Model):
    """The answer has the next page's URL, in its body (`path`) or in the `Link` header (no `path`)."""

    type: Literal["link"]
    path: Text | None = Field(None, description="Where the body has it: links.next.")


Pagination = Annotated[
    PagePagination | OffsetPagination | CursorPagination | LinkPagination, Field(discriminator="type")
]


class BearerAuth(Model):
    """`Authorization: Bearer ...`."""

    type: Literal["bearer"]
    token: Text


class BasicAuth(Model):
    """`Authorization: Basic ...`."""

    type: Literal["basic"]
    username: Text
    password: str = ""


class ApiKeyAuth(Model):
    """A key in a header."""

    type: Literal["api_key"]
    key: Text
    header: Text = "X-API-Key"


Auth = Annotated[BearerAuth | BasicAuth | ApiKeyAuth, Field(discriminator="type")]


class ApiSource(Model):
    """JSON records over HTTP, page by page."""

    type: Literal["api"]
    url: Text
    params: dict[str, Scalar] = {}
    headers: dict[str, str] = {}
    auth: Auth | None = None
    records: Text | None = Field(
        None, description="Where the answer has its records: data; the answer itself if not given."
    )
    pagination: Pagination | None = None
    incremental: ApiIncremental | None = None


Source = Annotated[DatabaseSource | FileSource | ApiSource, Field(discriminator="type")]


# --- transform ------------------------------------------------------------------------------------------------


class Checks(Model):
    """What a column's values must be."""

    required: bool = False
    unique: bool = False
    min: Scalar | date | None = None
    max: Scalar | date | None = None
    min_length: int | None = Field(None, ge=0)
    max_length: int | None = Field(None, ge=0)
    pattern: str | None = Field(None, description="Regular expression (RE2) that the whole value must match.")
    in_: list[Scalar] | None = Field(None, alias="in", min_length=1)
    not_in: list[Scalar] | None = Field(None, min_length=1)


class Transform(Model):
    """The rules, always applied in this order: map, convert, validate, derive, filter.

    The result has the columns that the rules name: those that `map` gives, those that `convert` and `validate`
    name, and the derived ones. Without `map`, or with `"*": "*"` in it, it has all the others, too.
    """

    map: dict[Text, Text] = Field(
        {}, description='Rename: {old: new}; nested: {address.city: city}; "*": "*" keeps the rest.'
    )
    convert: dict[Text, Type] = Field({}, description="Column -> type; what does not convert exactly is a broken rule.")
    checks: dict[Text, Checks] = Field({}, alias="validate", description="Column -> what its values must be.")
    derive: dict[Text, Text] = Field({}, description="New column -> SQL expression over the row's columns.")
    filter: list[Text] = Field([], description="SQL predicates; a row stays if all of them are true.")

    @property
    def keeps_rest(self) -> bool:
        """Whether columns that no rule names are kept."""
        return not self.map or self.map.get("*") == "*"

    @property
    def named_columns(self) -> list[str]:
        """Columns that `derive` and `filter` can count on, in order (before derived ones)."""
        mapped = [new for old, new in self.map.items() if old != "*"]
        return list(dict.fromkeys([*mapped, *self.convert, *self.checks]))


# --- destination ----------------------------------------------------------------------------------------------


class DatabaseDestination(Model):
    """A table in PostgreSQL, SQLite or DuckDB; made from the data if it is not there."""

    type: Literal["database"]
    connection: Text = Field(description="URL; keep it in the environment: ${PIVOTAL_WAREHOUSE_URL}.")
    table: Text = Field(description="Table, with its schema where it has one: analytics.orders.")
    write: Literal["append", "replace", "merge"]
    key: list[Text] = Field([], description="Columns that identify a row; `merge` needs them.")
    version: Text | None = Field(None, description="With `merge`: update a row only if this column is not older.")

    @model_validator(mode="after")
    def _merge_has_key(self) -> Self:
        if self.write == "merge" and not self.key:
            raise ValueError("`write: merge` needs `key`: the columns that identify a row")
        return self


class FileDestination(Model):
    """Parquet files in a folder, published whole or not at all."""

    type: Literal["file"]
    path: Text = Field(description="Folder, relative to the project.")
    format: Literal["parquet"] = "parquet"
    write: Literal["append", "replace"]


Destination = Annotated[DatabaseDestination | FileDestination, Field(discriminator="type")]


# --- pipeline -------------------------------------------------------------------------------------------------


class Pipeline(Model):
    """One pipeline: what is read, by which rules it becomes what is written."""

    name: Name = Field("", description="Told by the file's name if not given.", validate_default=False)
    description: Text
    owners: list[Text] = Field([], description="team:name or an email address.")
    group: Name = "pipelines"
    source: Source
    transform: Transform = Transform()
    destination: Destination
    on_invalid: Literal["quarantine", "fail"] = "quarantine"
    schedule: Cron | None = Field(None, description="Cron expression, in UTC.")

    @model_validator(mode="after")
    def _replace_reads_everything(self) -> Self:
        if self.destination.write == "replace" and getattr(self.source, "incremental", None):
            raise ValueError("`write: replace` with `incremental` would lose old rows; use merge or append")
        return self


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a pipeline file, for editors: `# yaml-language-server: $schema=pipeline.schema.json`."""
    return Pipeline.model_json_schema(by_alias=True)

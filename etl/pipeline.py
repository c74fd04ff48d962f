"""What a pipeline file may say: the model of one YAML file, with the checks that need no file and no server.

Light on purpose (pydantic only): Dagster's load reads it. Where a mistake stands in the file is the loader's
business (`etl.loader`); expressions are parsed in `etl.expressions`.
"""

from __future__ import annotations

import codecs
import keyword
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from etl.services import NotKnownError, spelled_out

_NAME = r"[a-z][a-z0-9_]{0,62}"
_RESERVED = {
    *keyword.kwlist,
    "conf",
    "config",
    "context",
    "dict",
    "float",
    "input",
    "int",
    "meta",
    "output",
    "str",
    "type",
}
_OWNER = r"team:\S.*|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}"
_DURATION = r"\d{1,6}\s*[smhd]"
_SIZE = r"(\d{1,6})\s*(KB|MB|GB)"
_SIZES = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_CRON = r"\s*([^\sLlWw]+\s+){2}([^\sWw]+\s+)([^\s]+\s+)([^\sLl]+)\s*"
_BROKER = r"[^\s:/@\[\]]+(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?"
_TYPES = "string, integer, bigint, number, decimal(p,s), boolean, date, timestamp, timestamptz, json, uuid"
_DIRECTIVES = "%d %m %b %B %Y %y, %H %I %p %M %S %f, %z"
_MARKS = (",", ".", " ", "'")
_TYPE = (
    r"string|integer|bigint|number|boolean|date|timestamp|timestamptz|json|uuid|decimal\(\s*\d{1,2}\s*,\s*\d{1,2}\s*\)"
)


FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".parquet": "parquet",
    ".xlsx": "excel",
}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_FORMATS_OF = {
    "delimiter": {"csv"},
    "quote": {"csv"},
    "escape": {"csv"},
    "columns": {"csv"},
    "nulls": {"csv"},
    "skip": {"csv", "fixed"},
    "encoding": {"csv", "fixed"},
    "fields": {"fixed"},
    "records": {"json"},
    "sheet": {"excel"},
    "header_row": {"excel"},
}


# A validator's message and its hint are told apart by "; " (see `etl.mistakes`).


def plain_name(value: str) -> str:
    """Lets a name pass that Dagster, files and tables can all have.

    Raises:
        ValueError: It is not such a name.
    """
    if not re.fullmatch(_NAME, value):
        raise ValueError("not a name; use a-z, 0-9 and _, a letter first, at most 63 characters")
    if value in _RESERVED:
        raise ValueError("a word that Dagster and Python keep for themselves; choose another one")
    return value


def _owner(value: str) -> str:
    if not re.fullmatch(_OWNER, value):
        raise ValueError("not an owner; write team:name or an email address")
    return value


def duration(value: object) -> timedelta:
    """How long `90s`, `10m`, `2h` or `1d` is.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not re.fullmatch(_DURATION, value):
        raise ValueError("not a duration; write a number and a unit: 90s, 10m, 2h, 1d")
    return timedelta(**{_UNITS[value[-1]]: int(value[:-1])})


def _cron(value: str) -> str:
    five = "write five fields, minute hour day month weekday: '*/15 * * * *'"
    if len(value.split()) != 5:
        raise ValueError(f"not a cron expression: it has not 5 fields, but {len(value.split())}; {five}")
    try:
        CronSim(value, datetime(2024, 1, 1))  # noqa: DTZ001  (only the five fields are looked at)
    except CronSimError as error:
        raise ValueError(f"not a cron expression: {str(error).lower()}; {five}") from None
    if not re.fullmatch(_CRON, value):
        raise ValueError(f"not a cron expression that Dagster knows: W, or L for a weekday; {five}")
    return value


def _type(value: str) -> str:
    if value.startswith("decimal(") and not value.endswith(")"):
        raise ValueError('not a type; a comma ends a value inside { }: put it in quotes, "decimal(18,2)"')
    if not re.fullmatch(_TYPE, value):
        raise ValueError(f"not a type; choose {_TYPES}")
    if sizes := re.findall(r"\d+", value):
        precision, scale = map(int, sizes)
        if not 1 <= precision <= 38 or scale > precision:
            raise ValueError(
                "not a decimal that can be; decimal(p,s) has 1 to 38 digits, at most all of them after the point"
            )
    return value.replace(" ", "")


def _size(value: object) -> object:
    if isinstance(value, int):
        return value
    if not isinstance(value, str) or not (found := re.fullmatch(_SIZE, value)):
        raise ValueError("not a size; write a number and a unit: 500KB, 64MB, 1GB")
    return int(found[1]) * _SIZES[found[2]]


def _place(value: str) -> str:
    if value.startswith("~"):
        raise ValueError("a path that nobody expands `~` in; write the whole path, or one from the project's root")
    if re.match("s3:(?!//)|s3:///", value):
        raise ValueError("not an address in S3; write s3://bucket/key")
    return value


def _address(value: str) -> str:
    if not re.match(r"https?://|\$\{", value):
        raise ValueError("not an address; it begins with https:// (or http://)")
    return value


def _folder(value: str) -> str:
    path = re.sub(r"\$\{[^}]*\}", "v", value)  # variables
    if re.search(r"[{}]", re.sub(r"\{[^{}/]+\}", "", path)):
        raise ValueError("a `{` or `}` that names no column; write {column}")
    fixed, placeholder, _ = path.partition("{")
    if placeholder and fixed.rpartition("/")[0].strip("/") in {"", "s3:"}:
        raise ValueError("`path` has no folder before the first {column}; write one: data/lake/orders/{country}")
    return value


def _moment(value: object) -> object:
    if value in {"earliest", "latest"} or isinstance(value, datetime):
        return value
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("not earliest, latest or a time with its offset; write 2024-01-01T00:00:00Z")
    return moment


def _formats(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _unreadable(form: str, kind: str) -> str | None:
    """Why a type cannot be read by a format, if it cannot."""
    if kind not in {"date", "timestamp", "timestamptz"}:
        return f"not for {kind}, only for dates and timestamps"
    parts = re.findall("%(-?.?)", form)
    names = ["b" if part == "B" else part.removeprefix("-") for part in parts if part != "%"]
    if unknown := [part for part in parts if not re.fullmatch("-?[dmyHIMS]|[YbBfpz%]", part)]:
        return f"a format with %{unknown[0]}, which cannot be read"
    if len(set(names)) < len(names) or not ({"d"} < {*names} and {"m", "b"} & {*names} and {"Y", "y"} & {*names}):
        return "a format that has not day, month and year once each"
    if kind == "date" and set(names) & set("HIMSfpz"):
        return "a format with a time of day, which a date has not"
    if kind == "timestamp" and "z" in names:
        return "a format with an offset, which a timestamp has not"
    return "a format with only one of %I and %p" if ("I" in names) != ("p" in names) else None


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not a time zone; write one like Europe/Berlin or UTC") from None
    return value


def _mark(value: str) -> str:
    if value not in _MARKS:
        raise ValueError("not what stands between thousands; write ',', '.', ' ' or \"'\", in quotes")
    return value


def _encoding(value: str) -> str:
    try:
        codecs.lookup(value)
    except LookupError:
        raise ValueError("not an encoding that Python knows; write utf-8, latin-1, cp1252, ...") from None
    return value


def _character(value: str) -> str:
    if not value.isascii() or value in "\r\n":
        raise ValueError("not a character that can part cells; write one of ASCII's, and none that ends a line")
    return value


def _quoted(value: object) -> object:
    if value is None:
        raise ValueError('not a text; put it in quotes: "NULL"')
    return value


def _span(value: object) -> object:
    if isinstance(value, tuple):
        return value
    places = re.fullmatch(r"(\d{1,6})(?:\s*(-)\s*(\d{1,6})?)?", str(value))
    first, last = (int(places[1]), int(places[3] or 0) or None) if places else (0, None)
    if not places or first < 1 or (last is not None and last < first):
        raise ValueError("not a range of columns; write the first and the last, counted from 1: 1-6, or 7- to the end")
    return first, last if places[2] else first


def file_format(path: str) -> str | None:
    """The format of a file by its name, whose compression does not matter; None if the name does not tell."""
    name = PurePosixPath(path.lower())
    return FORMATS.get(PurePosixPath(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix)


def _instead_of(other: str, value: str | None, info: ValidationInfo, hint: str) -> str | None:
    """Lets a key pass that stands exactly where the other does not."""
    if other in info.data and (info.data[other] is None) == (value is None):
        what = f"`{other}` is missing" if value is None else f"`{info.field_name}` beside `{other}`"
        raise ValueError(f"{what}; {hint}")
    return value


def _pattern(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^({pattern})$"})


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default")


Name = Annotated[str, AfterValidator(plain_name), _pattern(_NAME)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Owner = Annotated[Text, AfterValidator(_owner), _pattern(_OWNER)]
Duration = Annotated[timedelta, BeforeValidator(duration), _pattern(_DURATION)]
Cron = Annotated[str, AfterValidator(_cron), _pattern(_CRON)]
Type = Annotated[str, AfterValidator(_type), _pattern(_TYPE)]
Character = Annotated[str, StringConstraints(min_length=1, max_length=1), AfterValidator(_character)]
Span = Annotated[
    tuple[int, int | None],
    BeforeValidator(_span),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": r"^\d+(\s*-\s*\d*)?$"}, {"type": "integer", "minimum": 1}]}
    ),
]
Formats = Annotated[
    list[Text],
    BeforeValidator(_formats),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}),
]
Mark = Annotated[str, AfterValidator(_mark), WithJsonSchema({"type": "string", "enum": list(_MARKS)})]
Zone = Annotated[str, AfterValidator(_zone)]
Encoding = Annotated[str, AfterValidator(_encoding)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0), _pattern(r"\d{1,6}\s*(KB|MB|GB)")]
Place = Annotated[Text, AfterValidator(_place)]
Folder = Annotated[Place, AfterValidator(_folder)]
Address = Annotated[Text, AfterValidator(_address)]
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


class Filter(Model):
    """What a column's value must be for its row to be read: all of it. As in SQL, NULL is neither equal nor unequal."""

    equal: Scalar | None = Field(None, alias="=", description="This value; null: none.")
    not_equal: Scalar | None = Field(None, alias="!=", description="Another value; null: any.")
    less: Scalar | None = Field(None, alias="<", description="Less than this.")
    at_most: Scalar | None = Field(None, alias="<=", description="This or less.")
    more: Scalar | None = Field(None, alias=">", description="More than this.")
    at_least: Scalar | None = Field(None, alias=">=", description="This or more.")
    in_: list[Scalar] = Field([], alias="in", min_length=1, max_length=1000, description="One of these.")
    not_in: list[Scalar] = Field([], min_length=1, max_length=1000, description="Another value than these.")

    @field_validator("less", "at_most", "more", "at_least")
    @classmethod
    def _nothing_is_beside_null(cls, value: Scalar | None) -> Scalar:
        if value is None:
            raise ValueError('compared with null, and no value is less or more than that; write {"!=": null}')
        return value


def _filter(value: object) -> object:
    """The short forms: `region: eu`, `status: [paid, open]`, `deleted_at: null`."""
    if isinstance(value, dict | Filter):
        return value
    return {"in": value} if isinstance(value, list) else {"=": value}


class DatabaseSource(Model):
    """Rows of a table or a query, from any database that SQLAlchemy knows."""

    type: Literal["database"]
    connection: Text = Field(description="SQLAlchemy URL; keep it in the environment: ${SHOP_DATABASE_URL}.")
    table: Text | None = Field(None, description="Table or view, with its schema where it has one.")
    query: Text | None = Field(None, description="One SELECT, instead of a table.", validate_default=True)
    columns: list[Text] | None = Field(None, min_length=1, description="Columns to read; all if not given.")
    filters: dict[Text, Annotated[Filter, BeforeValidator(_filter, Filter | list[Scalar] | Scalar | None)]] = Field(
        {}, description='Rows to read: {region: eu, status: [paid, open], created_at: {">=": 2024-01-01}}.'
    )
    incremental: Incremental | None = None
    parallel: int = Field(
        1, ge=1, le=16, description="PostgreSQL tables only: how many connections read, all inside one snapshot."
    )

    @field_validator("query")
    @classmethod
    def _table_or_query(cls, query: str | None, info: ValidationInfo) -> str | None:
        return _instead_of("table", query, info, "give either `table` or `query`")

    @field_validator("parallel")
    @classmethod
    def _only_a_table_has_parts(cls, parallel: int, info: ValidationInfo) -> int:
        if parallel > 1 and info.data.get("query"):
            raise ValueError("`parallel` beside `query`; name the `table` instead, or leave `parallel` out")
        return parallel


class FileSource(Model):
    """Files, on disk or in S3, by path or glob."""

    type: Literal["file"]
    path: Place = Field(
        description="Path or glob, relative to the project: inbox/payments-*.csv.gz; or s3://bucket/inbox/*.csv."
    )
    format: Literal["csv", "fixed", "ndjson", "json", "parquet", "excel"] | None = Field(
        None, description="Told by the name if not given; `fixed` is text with columns of a fixed width."
    )
    delimiter: Character | None = Field(
        None, description='CSV only: a comma, in .tsv files a tab, if not given; "\\t" is a tab.'
    )
    quote: Character | None = Field('"', description="CSV only: what stands around quoted cells; null: nothing does.")
    escape: Character | None = Field(
        None, description='CSV only: what takes the meaning from the next character; "" in a quoted cell needs none.'
    )
    columns: list[Text] | None = Field(
        None, min_length=1, description="CSV only: the columns' names, if the file has no header."
    )
    skip: int = Field(
        0, ge=0, description="CSV and fixed width: lines to leave out, before the header if there is one."
    )
    nulls: list[Annotated[Text, BeforeValidator(_quoted)]] = Field(
        [], description='CSV only: texts that mean NULL, as the empty cell does: ["NULL", "\\\\N"].'
    )
    fields: dict[Text, Span] = Field(
        {},
        description="Fixed width only: each column's first and last character: {id: 1-6, name: 7-26, note: 27-}.",
        validate_default=True,
    )
    encoding: Encoding = Field("utf-8", description="CSV and fixed width only.")
    records: Text | None = Field(
        None, description="JSON only: where the document has its records: data.items; the document itself if not given."
    )
    sheet: Text | None = Field(None, description="Excel only: the sheet's name; the first one if not given.")
    header_row: int = Field(1, ge=1, description="Excel only: the row that has the columns' names.")
    members: Text = Field("*", description='Zip archives only: which of their files to read: "*.csv".')
    incremental: bool = Field(False, description="Load each file (path, size, modification time; in S3 its ETag) once.")

    @field_validator(*_FORMATS_OF)
    @classmethod
    def _fits_the_format(cls, value: object, info: ValidationInfo) -> object:
        name, format_ = info.field_name or "", info.data.get("format") or file_format(info.data.get("path", ""))
        if name == "fields" and bool(value) != (format_ == "fixed"):
            what = "`format: fixed` without `fields`" if format_ == "fixed" else "`fields` without `format: fixed`"
            raise ValueError(f"{what}; say both: `format: fixed` and `fields: {{id: 1-6, name: 7-26}}`")
        is_said = value != cls.model_fields[name].default
        if is_said and name != "fields" and format_ and format_ not in _FORMATS_OF[name]:
            meant = " and ".join(sorted(_FORMATS_OF[name]))
            raise ValueError(f"`{name}` with `format: {format_}`; leave it out: it is for {meant} only")
        return value

    @field_validator("quote", "escape")
    @classmethod
    def _differs(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and value == (info.data.get("delimiter") or ","):
            raise ValueError("the character that parts cells, too; choose another one")
        if info.field_name == "escape" and value is not None and value == info.data.get("quote"):
            raise ValueError("the quote, too; leave it out: a doubled quote in a quoted cell is understood without it")
        return value

    @field_validator("columns")
    @classmethod
    def _named_once(cls, columns: list[str] | None) -> list[str] | None:
        for name in columns or ():
            if columns and columns.count(name) > 1:
                raise ValueError(f"a list that has {name!r} twice; give one another name")
        return columns

    @field_validator("nulls")
    @classmethod
    def _is_not_escaped(cls, nulls: list[str], info: ValidationInfo) -> list[str]:
        if (escape := info.data.get("escape")) and any(escape in text for text in nulls):
            raise ValueError(
                f"a list with the character of `escape`, {escape}, which would be gone by then; leave `escape` out"
            )
        return nulls


class ApiParameter(Model):
    """Something that is sent with a request."""

    in_: Literal["query", "body"] = Field(
        "query", alias="in", description="Where the parameter goes: the query, or the body (variables.after)."
    )


class ApiIncremental(Incremental, ApiParameter):
    """As for databases; the cursor is also sent to the API so that it answers with new records only.

    With `service`, cursor and parameter are known.
    """

    model_config = ConfigDict(json_schema_extra=lambda schema: _not_needed(schema, "cursor", "param"))

    param: Text = Field(description="Parameter that takes the cursor: created[gte].")


class PagePagination(ApiParameter):
    """`?page=1`, `?page=2`, ... until a page has no records."""

    type: Literal["page"]
    param: Text = Field("page", description="Query parameter that takes the page's number.")
    start: int = Field(1, description="The first page's number.")


class OffsetPagination(ApiParameter):
    """`?offset=0`, `?offset=100`, ... until a page has no records; an API may give fewer than `limit`."""

    type: Literal["offset"]
    param: Text = Field("offset", description="Query parameter that takes how many records come before the page.")
    limit: int = Field(100, gt=0, description="How many records to ask for at a time.")
    limit_param: Text = Field("limit", description="Query parameter that takes it.")


class CursorPagination(ApiParameter):
    """The answer says where the next page starts."""

    type: Literal["cursor"]
    param: Text = Field(description="Parameter that takes the cursor: starting_after.")
    path: Text | None = Field(
        None, description="Where the answer has it: next_cursor, data.-1.id (the last record's id)."
    )
    header: Text | None = Field(None, description="Or the header that has it: X-Next-Cursor.", validate_default=True)
    more: Text | None = Field(
        None, description="Field of the answer that is true while there are more pages: has_more."
    )

    @field_validator("header")
    @classmethod
    def _path_or_header(cls, header: str | None, info: ValidationInfo) -> str | None:
        return _instead_of("path", header, info, "say where the cursor is: `path` or `header`")


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
    token: Text = Field(description="The token; keep it in the environment: ${SHOP_API_TOKEN}.")


class BasicAuth(Model):
    """`Authorization: Basic ...`."""

    type: Literal["basic"]
    username: Text = Field(description="The user's name.")
    password: str = Field("", description="The password; keep it in the environment: ${SHOP_API_PASSWORD}.")


class ApiKeyAuth(Model):
    """A key in a header, or in the query."""

    type: Literal["api_key"]
    key: Text = Field(description="The key; keep it in the environment: ${SHOP_API_KEY}.")
    header: Text = Field("X-API-Key", description="The header's name.")
    param: Text | None = Field(None, description="The query parameter's name, if the key goes there: appid.")


class OAuth2Auth(Model):
    """A token that the service gives for a client's id and secret (client credentials), and renews."""

    type: Literal["oauth2"]
    token_url: Text = Field(description="Who gives tokens: https://login.example.com/oauth/token.")
    client_id: Text = Field(description="The client's id.")
    client_secret: Text = Field(description="Its secret; keep it in the environment: ${SHOP_CLIENT_SECRET}.")
    scope: Text | None = Field(None, description="What the token is for, separated by spaces.")
    params: dict[Text, str] = Field({}, description="What else the service wants to know: {audience: ...}.")


Auth = Annotated[BearerAuth | BasicAuth | ApiKeyAuth | OAuth2Auth, Field(discriminator="type")]


class ForEach(Model):
    """The list whose records each have a list of their own, behind an address of their own."""

    url: Text = Field(description="Where the list is: https://api.example.com/v1/customers.")
    params: dict[str, Scalar] = Field({}, description="Query parameters of its requests.")
    records: Text | None = Field(None, description="Where the answer has its records.")
    pagination: Pagination | None = None
    as_: Name = Field(
        alias="as", description="Field of every record read that gets what `url` has in braces: customer (customer_id)."
    )


def shown_url(url: str) -> str:
    """A URL as it may be shown: without user, password and query."""
    return re.sub(r"(?<=//)[^/@]*@|\?.*", "", url)


def placeholders(url: str) -> list[str]:
    """What stands in braces in a URL: `id` of `/customers/{id}`, not the variable of `${BASE}`."""
    return re.findall(r"(?<!\$)\{([^{}]*)\}", url)


def _not_needed(schema: dict[str, Any], *keys: str) -> None:
    """For editors: keys that need not stand in the file where `service` says them."""
    schema["required"] = [key for key in schema["required"] if key not in keys]


class ApiSource(Model):
    """JSON records over HTTP, page by page. Needs `url`, or `service` and `resource`."""

    model_config = ConfigDict(json_schema_extra=lambda schema: _not_needed(schema, "url"))

    type: Literal["api"]
    service: Literal["sendgrid", "stripe"] | None = Field(
        None, description="A service that is known by name: its address, key, pages and cursor need not be said."
    )
    resource: Text | None = Field(None, description="With `service`: what is read of it: invoices.")
    url: Address = Field(
        description="Where the first page is: https://api.example.com/v1/customers; with `for_each` what is in braces "
        "is a field of the other list's record: .../customers/{id}/invoices."
    )
    params: dict[str, Scalar] = Field({}, description="Query parameters of every request.")
    body: dict[str, Any] | None = Field(None, description="JSON body of every request; the requests are then POST.")
    headers: dict[str, str] = Field({}, description="Headers of every request.")
    auth: Auth | None = None
    records: Text | None = Field(
        None, description="Where the answer has its records: data; the answer itself if not given."
    )
    pagination: Pagination | None = None
    for_each: ForEach | None = Field(
        None, description="Read this for each record of another list.", validate_default=True
    )
    incremental: ApiIncremental | None = None
    conditional: bool = Field(
        False, description="Ask with If-None-Match: an answer that has not changed since the last run has no rows."
    )
    concurrency: int = Field(
        1, ge=1, le=32, description="Requests under way at a time: pages by number or offset, or parents of `for_each`."
    )
    resume: bool = Field(
        False,
        description="A run that fails at a page keeps what it has read, and the next one goes on there; only for lists "
        "that grow at their end.",
    )

    @model_validator(mode="before")
    @classmethod
    def _known_by_name(cls, value: object) -> object:
        if not isinstance(value, dict) or not {"service", "resource"} & value.keys():
            return value
        try:
            return spelled_out(value)
        except NotKnownError as error:
            raise PydanticCustomError("value_error", str(error), {"at": error.key}) from None

    @field_validator("pagination", "incremental")
    @classmethod
    def _body_is_there(cls, value: ApiParameter | None, info: ValidationInfo) -> ApiParameter | None:
        if getattr(value, "in_", "query") == "body" and info.data.get("body") is None:
            raise PydanticCustomError(
                "value_error", "`in: body` without `body`; add it, empty if need be: `body: {}`", {"at": "in"}
            )
        return value

    @field_validator("for_each")
    @classmethod
    def _names_the_parent(cls, for_each: ForEach | None, info: ValidationInfo) -> ForEach | None:
        named = placeholders(info.data.get("url", ""))
        if for_each and not named and "url" in info.data:
            raise ValueError("`for_each` without a field of its records in `url`; write .../customers/{id}/invoices")
        if named and not for_each:
            raise ValueError(f"`{{{named[0]}}}` in `url` without `for_each`; say where the list is that has it")
        if for_each and getattr(for_each.pagination, "in_", "query") == "body":
            raise ValueError("read by GET, so its pagination cannot stand in the body; write `in: query`")
        return for_each

    @field_validator("conditional")
    @classmethod
    def _is_one_answer(cls, conditional: bool, info: ValidationInfo) -> bool:
        beside = [name for name in ("body", "pagination", "for_each", "incremental") if info.data.get(name) is not None]
        if conditional and beside:
            raise ValueError(f"`conditional` beside `{beside[0]}`; it needs a source that is one answer")
        return conditional

    @field_validator("concurrency")
    @classmethod
    def _is_addressable(cls, concurrency: int, info: ValidationInfo) -> int:
        if concurrency == 1 or not {"pagination", "for_each"} <= set(info.data):
            return concurrency
        if not isinstance(info.data["pagination"], PagePagination | OffsetPagination) and not info.data["for_each"]:
            raise ValueError(
                "`concurrency` needs pages that can be asked for before the one before them has come; "
                "it goes with `for_each`, and with pagination by page or offset"
            )
        return concurrency

    @field_validator("resume")
    @classmethod
    def _has_pages(cls, resume: bool, info: ValidationInfo) -> bool:
        known = {"pagination", "for_each"} <= set(info.data)
        if resume and known and (info.data["for_each"] or not info.data["pagination"]):
            raise ValueError("`resume` needs pages; it goes with `pagination`, without `for_each`")
        return resume


class SaslAuth(Model):
    """Who asks: SASL's user and password."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How the password is proven; PLAIN sends it, so it needs `tls`."
    )
    username: Text = Field(description="The user's name; keep it in the environment: ${KAFKA_USERNAME}.")
    password: Text = Field(description="The password; keep it in the environment: ${KAFKA_PASSWORD}.")


class Tls(Model):
    """TLS to the brokers. Paths are relative to the project."""

    ca: Text | None = Field(
        None,
        description="File (PEM) with the authorities that signed the brokers' certificates; the system's if not given.",
    )
    certificate: Text | None = Field(
        None, description="File (PEM) with our own certificate, where brokers ask for one."
    )
    key: Text | None = Field(None, description="File (PEM) with its key, if `certificate` does not hold it.")


class Brokers(Model):
    """Kafka's brokers, and how they are reached."""

    brokers: Text = Field(description="host:port, comma-separated; keep it in the environment: ${KAFKA_BROKERS}.")
    auth: SaslAuth | None = None
    tls: Tls | None = Field(None, description="TLS; `{}` trusts the system's authorities. Plain text if not given.")
    client_id: Text = Field("pivotal", description="What the brokers' logs call us.")
    timeout: Duration = Field(
        timedelta(seconds=30),
        description="How long the brokers may be away, or take for an answer, before a run fails.",
    )

    @field_validator("brokers")
    @classmethod
    def _are_addresses(cls, brokers: str) -> str:
        for broker in brokers.split(","):
            if "$" not in broker and not re.fullmatch(rf"\s*({_BROKER})\s*", broker):
                raise ValueError(
                    "not the addresses of brokers; write host:port, comma-separated: kafka1:9092, kafka2:9092"
                )
        return brokers


class Registry(Model):
    """A schema registry that speaks Confluent's protocol."""

    url: Address = Field(description="Where it answers: ${SCHEMA_REGISTRY_URL}.")
    auth: Auth | None = None


class StreamSource(Brokers):
    """Records of Kafka topics: each run reads what has come since the last one, and then ends."""

    type: Literal["stream"]
    topics: Annotated[list[Text], BeforeValidator(_formats), Field(min_length=1)] = Field(
        description="Topics by name or glob: [orders, shop.*]; new ones that fit are read from their beginning."
    )
    format: Literal["json", "csv", "raw", "avro", "protobuf"] = Field(
        "json",
        description="What a record's value is: a JSON object, a line of CSV, bytes (column `value`), or a record of "
        "Avro or Protobuf whose schema is in `registry`.",
    )
    tombstones: Literal["quarantine", "skip", "keep", "delete"] = Field(
        "quarantine",
        description="A record without a value: set it aside, leave it out (filtered), keep it as a row of NULLs in "
        "which kafka_tombstone is true, or delete the row of its key from the table that rows are merged into.",
    )
    key_format: Literal["json", "text", "avro"] = Field(
        "json",
        description="With `tombstones: delete`: what a record's key is: JSON (an object, or one value), text as it is, "
        "or Avro whose schema is in `registry`.",
    )
    registry: Registry | None = Field(
        None, validate_default=True, description="Avro and Protobuf only: who has the schemas."
    )
    columns: list[Text] | None = Field(
        None, min_length=1, validate_default=True, description="CSV only: the columns' names."
    )
    delimiter: Character = Field(",", description="CSV only.")
    metadata: list[Literal["topic", "partition", "offset", "timestamp", "key", "key_bytes", "headers"]] = Field(
        [], description="What of the record itself becomes a column: kafka_topic, kafka_partition, kafka_offset, ..."
    )
    start: Annotated[Literal["earliest", "latest"] | datetime, BeforeValidator(_moment)] = Field(
        "earliest", description="Where the first run starts: earliest, latest, or a time: 2024-01-01T00:00:00Z."
    )
    max_records: int | None = Field(None, ge=1, description="How many records a run reads at most.")
    max_seconds: Duration | None = Field(None, description="How long a run reads at most.")
    on_gap: Literal["fail", "continue"] = Field(
        "fail",
        description="Records that were deleted before they were read: fail the run, or go on behind them and report "
        "how many there were.",
    )
    group: Text | None = Field(
        None, description="Consumer group that the offsets are shown under, for lag tools; pivotal-NAME if not given."
    )

    run_at_lag: int | None = Field(
        None, ge=1, description="Dagster starts a run when so many records wait; it looks every 30 seconds."
    )

    @property
    def added_columns(self) -> list[str]:
        """The columns that rows have beside those of the values."""
        added = [*self.metadata, *(["tombstone"] if self.tombstones == "keep" else [])]
        return [f"kafka_{name}" for name in added]

    @field_validator("columns")
    @classmethod
    def _names_of_csv(cls, columns: list[str] | None, info: ValidationInfo) -> list[str] | None:
        is_csv = info.data.get("format") == "csv"
        if is_csv != bool(columns) and "format" in info.data:
            what = "`format: csv` without `columns`" if is_csv else "`columns` without `format: csv`"
            raise ValueError(f"{what}; records have no header: say both, or none")
        return columns

    @field_validator("key_format")
    @classmethod
    def _something_reads_keys(cls, form: str, info: ValidationInfo) -> str:
        if form != "json" and info.data.get("tombstones", "delete") != "delete":
            raise ValueError("`key_format` without `tombstones: delete`; nothing else reads keys: leave it out")
        return form

    @field_validator("registry")
    @classmethod
    def _has_schemas(cls, registry: Registry | None, info: ValidationInfo) -> Registry | None:
        told = {name: info.data.get(name, "json") for name in ("format", "key_format")}
        needing = [f"{name}: {kind}" for name, kind in told.items() if kind in {"avro", "protobuf"}]
        if bool(needing) != bool(registry) and "format" in info.data:
            what = "`registry` with" if registry else "no `registry` with"
            which = needing[0] if needing else f"format: {told['format']}"
            raise ValueError(f"{what} `{which}`; avro and protobuf need one: {{url: ${{SCHEMA_REGISTRY_URL}}}}")
        return registry


Source = Annotated[DatabaseSource | FileSource | ApiSource | StreamSource, Field(discriminator="type")]


# --- transform ------------------------------------------------------------------------------------------------


class Conversion(Model):
    """A type, and how the texts that become it are written."""

    type: Type = Field(description=f"One of {_TYPES}.")
    format: Formats | None = Field(
        None,
        description="date, timestamp, timestamptz: how texts are written, %d.%m.%Y; of several, the first that fits.",
    )
    timezone: Zone | None = Field(
        None,
        validate_default=True,
        description="timestamptz: where texts and timestamps without an offset are from: Europe/Berlin.",
    )
    decimal: Literal[",", "."] | None = Field(None, description="Numbers: the decimal sign, if it is not the point.")
    thousands: Mark | None = Field(None, description="Numbers: what may stand between groups of three digits.")

    @model_validator(mode="before")
    @classmethod
    def _a_type_alone(cls, value: object) -> object:
        return value if isinstance(value, dict | Conversion) else {"type": _type(str(value))}

    @field_validator("format")
    @classmethod
    def _has_the_parts(cls, formats: list[str] | None, info: ValidationInfo) -> list[str] | None:
        for each in formats or ():
            if wrong := _unreadable(each, info.data.get("type", "timestamptz")):
                raise ValueError(f"{wrong}; write it with {_DIRECTIVES}")
        return formats

    @field_validator("timezone", "decimal", "thousands")
    @classmethod
    def _is_for_the_type(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("type", "").partition("(")[0]
        types = ("timestamptz",) if info.field_name == "timezone" else ("integer", "bigint", "number", "decimal")
        if value is not None and kind and kind not in types:
            raise ValueError(f"not for {kind}; it is for {', '.join(types)}")
        if value is not None and value == (info.data.get("decimal") or ".") and info.field_name == "thousands":
            raise ValueError("the decimal sign, too; say `decimal` as well, and another one")
        return value

    @field_validator("timezone")
    @classmethod
    def _is_needed(cls, zone: str | None, info: ValidationInfo) -> str | None:
        forms = info.data.get("format") or () if info.data.get("type") == "timestamptz" else ()
        if zone is None and any("%z" not in form for form in forms):
            raise ValueError("`timezone` is missing, and a format has no offset; say `timezone: Europe/Berlin`")
        return zone

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(core), {"type": "string", "pattern": f"^({_TYPE})$"}]}


class References(Model):
    """The column of another table that has every value of this one."""

    table: Text = Field(description="Table, with its schema where it has one: crm.customers.")
    column: Text = Field(description="Its column: id.")
    connection: Text | None = Field(
        None, description="URL of the database that has the table, ${CRM_DATABASE_URL}; the destination's if not given."
    )


class Checks(Model):
    """What a column's values must be."""

    required: bool = Field(False, description="There is a value: not NULL.")
    unique: bool = Field(False, description="No two rows of a run have the same value.")
    type: Type | None = Field(None, description="The values are of this type, or texts that say one; they stay texts.")
    references: References | None = Field(None, description="Foreign key: another table has each of the values.")
    min: Scalar | date | None = Field(None, description="The least value there may be.")
    max: Scalar | date | None = Field(None, description="The greatest value there may be.")
    min_length: int | None = Field(None, ge=0, description="The fewest characters a text may have.")
    max_length: int | None = Field(None, ge=0, description="The most characters a text may have.")
    pattern: str | None = Field(None, description="Regular expression (RE2) that the whole value must match.")
    in_: list[Scalar] | None = Field(None, alias="in", min_length=1, description="The values there may be.")
    not_in: list[Scalar] | None = Field(None, min_length=1, description="Values there may not be.")


class ChildTable(Model):
    """A table of the objects in a list that each row has: a row for each of them, with its row's keys."""

    from_: Text = Field(
        alias="from",
        description="Column, by its name after the other rules, that has a list of objects (or JSON that is one); "
        "nested: details.items. The row itself is loaded without it.",
    )
    keys: dict[Text, Text] = Field(
        min_length=1, description="Column of the row -> its name in the child table: {id: order_id}."
    )
    position: Text = Field(
        "position", description="Column that takes the object's place in its list, from 1.", validate_default=True
    )

    @field_validator("keys")
    @classmethod
    def _named_once(cls, keys: dict[str, str]) -> dict[str, str]:
        if twice := [name for name in keys.values() if [*keys.values()].count(name) > 1]:
            raise ValueError(f"a mapping that names two columns {twice[0]!r}; give one of them another name")
        return keys

    @field_validator("position")
    @classmethod
    def _is_no_key(cls, position: str, info: ValidationInfo) -> str:
        if position in info.data.get("keys", {}).values():
            raise ValueError(f"{position!r}, which is one of `keys`, too; give one of them another name")
        return position

    @property
    def column(self) -> str:
        """The list's column where structs are laid flat."""
        return self.from_.replace(".", "_")


class Transform(Model):
    """The rules, in this order: map, convert, validate (with expect and schema), derive, filter, children.

    The result has the columns that the rules name: those that `map` gives, those that `convert` and `validate`
    name, and the derived ones. Without `map`, or with `"*": "*"` in it, it has all the others, too.
    """

    map: dict[Text, Text] = Field(
        {}, description='Rename: {old: new}; nested: {address.city: city}; "*": "*" keeps the rest.'
    )
    convert: dict[Text, Conversion] = Field(
        {},
        description="Column -> type, or {type: date, format: '%d.%m.%Y'}; what does not convert exactly breaks a rule.",
    )
    checks: dict[Text, Checks] = Field({}, alias="validate", description="Column -> what its values must be.")
    expect: list[Text] = Field([], description="SQL conditions across columns; a row breaks those that are false.")
    schema_: Text | None = Field(
        None,
        alias="schema",
        pattern=r"^[^:\s][^:]*:[A-Za-z_]\w*$",
        description="A pandera schema that the rows follow: pipelines/schemas/orders.py:Orders, or module:Name.",
    )
    derive: dict[Text, Text] = Field({}, description="New column -> SQL expression over the row's columns.")
    filter: list[Text] = Field([], description="SQL predicates; a row stays if all of them are true.")
    children: dict[Text, ChildTable] = Field(
        {}, description="Child table, with its schema where it has one -> the list of objects that it takes."
    )
    on_new_column: Literal["add", "ignore", "fail"] = Field(
        "add",
        description="A column that no rule names and that the destination does not have yet: add it, leave it out, or "
        "fail the run.",
    )
    on_missing_column: Literal["fail"] | None = Field(
        "fail", description="A column that a rule names and the data lacks: fail the run, or take it as null."
    )

    @field_validator("children")
    @classmethod
    def _have_lists_of_their_own(cls, children: dict[str, ChildTable], info: ValidationInfo) -> dict[str, ChildTable]:
        lists = [child.column for child in children.values()]
        tables = [name.lower() for name in children]
        for name, child in children.items():
            if tables.count(name.lower()) > 1:
                message = f"`{name}` is two child tables, but for upper and lower case; give one another name"
                raise PydanticCustomError("value_error", message, {"at": name})
            if wrong := _no_list(child, lists, info.data):
                raise PydanticCustomError("value_error", wrong, {"at": name})
        return children

    @property
    def keeps_rest(self) -> bool:
        """Whether columns that no rule names are kept."""
        return not self.map or self.map.get("*") == "*"

    @property
    def named_columns(self) -> list[str]:
        """Columns that `derive` and `filter` can count on, in order (before derived ones)."""
        mapped = [new for old, new in self.map.items() if old != "*"]
        return list(dict.fromkeys([*mapped, *self.convert, *self.checks]))


def _no_list(child: ChildTable, lists: Sequence[str], rules: dict[str, Any]) -> str | None:
    """Why a child table cannot be made of its column, if it cannot."""
    name = child.from_
    conversion: Conversion | None = rules.get("convert", {}).get(name)
    checks: Checks | None = rules.get("checks", {}).get(name)
    checked = checks.model_dump(exclude_defaults=True, by_alias=True, exclude={"required"}) if checks else {}
    reasons = {
        f"`{name}` is the list of two child tables; name one table": lists.count(child.column) > 1,
        f"`{name}` is the list itself, so it cannot be one of `keys`; name columns that identify the row": (
            {name, child.column} & {*child.keys}
        ),
        f"`{name}` is converted to {conversion and conversion.type}, which is no list; convert it to json, or not": (
            conversion and conversion.type not in {"json", "string"}
        ),
        f"`{name}` is a list, for which `validate` has only `required`; leave out `{next(iter(checked), '')}`": (
            checked and checked != {"type": "json"}
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


# --- destination ----------------------------------------------------------------------------------------------


class DatabaseDestination(Model):
    """A table in PostgreSQL, MariaDB, SQLite or DuckDB; made from the data if it is not there."""

    type: Literal["database"]
    connection: Text = Field(description="URL; keep it in the environment: ${PIVOTAL_WAREHOUSE_URL}.")
    table: Text = Field(description="Table, with its schema where it has one: analytics.orders.")
    key: list[Text] = Field([], description="Columns that identify a row; `merge` needs them.")
    version: Text | None = Field(None, description="With `merge`: update a row only if this column is not older.")
    write: Literal["append", "replace", "merge"] = Field(
        description="Add the rows; put them in the place of all others; or insert and update by `key`."
    )
    history: bool = Field(
        False, description="With `merge`: keep every version of a row, with valid_from, valid_to and is_current."
    )
    delete_missing: bool = Field(
        False, description="With `merge`: delete the rows that a run does not bring, if it reads everything."
    )
    soft_delete: Name | None = Field(
        None,
        description="With `delete_missing`, or a stream's `tombstones: delete`: a column that takes the time of "
        "deletion, instead; else it is NULL.",
    )

    indexes: list[Text | list[Text]] = Field(
        [], description="Columns that get an index; [region, day] get one together. The key has one already."
    )
    comments: dict[Text, Text] = Field(
        {}, description="Column -> what it is, for those who read the table; written when the column is made."
    )

    @field_validator("write")
    @classmethod
    def _merge_has_key(cls, write: str, info: ValidationInfo) -> str:
        if write == "merge" and info.data.get("key") == []:
            raise ValueError("`merge` without `key`; add `key: [...]`, the columns that identify a row")
        if write != "merge" and info.data.get("version"):
            raise ValueError("`version` without `merge`; leave `version` out, or say `write: merge`")
        return write

    @field_validator("history", "delete_missing")
    @classmethod
    def _only_merge_compares(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("write", "merge") != "merge":
            raise ValueError(f"`{info.field_name}` without `merge`; leave it out, or say `write: merge`")
        return value

    @field_validator("soft_delete")
    @classmethod
    def _is_not_beside_history(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and info.data.get("history"):
            raise ValueError("`soft_delete` beside `history`, which closes missing rows by itself; leave it out")
        return value


class FileDestination(Model):
    """Files in a folder or in S3, published whole or not at all."""

    type: Literal["file"]
    path: Folder = Field(
        description="Folder, relative to the project, or s3://bucket/prefix; {column} in it makes a folder of each of "
        "the column's values: data/lake/orders/{country}. {date} (in UTC) and {run_id}, where there are no such "
        "columns, are of the run."
    )
    format: Literal["parquet", "csv", "ndjson", "excel"] = Field(
        "parquet", description="CSV and Excel have a header; an Excel file has one sheet."
    )
    compression: Literal["gzip", "zstd"] | None = Field(
        None, description="CSV and NDJSON only: the files are compressed, and named .gz or .zst."
    )
    file_size: Size | None = Field(
        None, description="About how large a file becomes before the next one begins: 64MB, 1GB. Not for Excel."
    )
    write: Literal["append", "replace"] = Field(description="Add files, or put them in the place of all others.")

    @field_validator("compression")
    @classmethod
    def _can_be_compressed(cls, compression: str | None, info: ValidationInfo) -> str | None:
        if compression and info.data.get("format") not in {"csv", "ndjson"}:
            raise ValueError("only csv and ndjson are compressed by it; parquet and excel are compressed always")
        return compression

    @field_validator("file_size")
    @classmethod
    def _can_be_measured(cls, size: int | None, info: ValidationInfo) -> int | None:
        if size and info.data.get("format") == "excel":
            raise ValueError("how large an Excel file becomes shows only at its end; leave `file_size` out")
        return size


class ItemErrors(Model):
    """Where an API that takes a part of a batch says which items it did not take."""

    path: Text = Field(description="Where the answer has the list of errors: errors.")
    index: Text = Field("index", description="Where an error has the item's place in the batch, from 0.")


class ApiDestination(Model):
    """JSON over HTTP: a request for each row, or for each batch of rows.

    State and quarantine are in the warehouse. At least once: every request has an idempotency key, which is the same
    for the same rows, whichever run sends them.
    """

    type: Literal["api"]
    url: Address = Field(
        description="Where rows are sent; what is in braces is a column: https://api.example.com/v1/customers/{id}."
    )
    method: Literal["POST", "PUT", "PATCH"] = Field("POST", description="HTTP method.")
    params: dict[str, Scalar] = Field({}, description="Query parameters of every request.")
    headers: dict[str, str] = Field({}, description="Headers of every request.")
    auth: Auth | None = None
    key: list[Text] = Field([], description="Columns that the idempotency key is made from; all of them if not given.")
    idempotency_header: Text = Field("Idempotency-Key", description="The header that takes the idempotency key.")
    batch: int | None = Field(
        None, ge=1, le=10_000, description="Rows a request, as a list; one, as an object, if not given."
    )
    records: Text | None = Field(
        None, description="With `batch`: the body's field that is the list; else it is the body."
    )
    errors: ItemErrors | None = Field(
        None, description="With `batch`: where the answer says which rows were not taken, if some were."
    )
    concurrency: int = Field(1, ge=1, le=32, description="Requests under way at a time; rows keep their order with 1.")

    @property
    def write(self) -> Literal["append"]:
        """What an API is given is never taken back."""
        return "append"

    @field_validator("url")
    @classmethod
    def _server_is_fixed(cls, url: str) -> str:
        if re.match(r"[a-z]+://[^/?]*(?<!\$)\{", url):
            raise ValueError("not an address of one server; columns in braces stand behind its name")
        return url

    @field_validator("batch")
    @classmethod
    def _one_address(cls, batch: int | None, info: ValidationInfo) -> int | None:
        if batch and (named := placeholders(info.data.get("url", ""))):
            raise ValueError(
                f"`batch` beside `{{{named[0]}}}` in `url`; a batch has one address: leave one of them out"
            )
        return batch

    @field_validator("records", "errors")
    @classmethod
    def _is_a_batch(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get("batch") is None:
            raise ValueError(f"`{info.field_name}` without `batch`; say how many rows a request has, or leave it out")
        return value


class StreamDestination(Brokers):
    """A Kafka topic: a record, a JSON object, for each row; readers see all records of a run or none.

    State is in the topic `_pivotal_state.NAME`, which is made; the quarantine is in the warehouse.
    """

    type: Literal["stream"]
    topic: Text = Field(description="The topic; it must be there.")
    format: Literal["json"] = Field("json", description="What a record's value is.")
    key: list[Text] = Field(
        [],
        description="Columns that are the record's key: one as text, several as a JSON object. Records of one key keep "
        "their order.",
    )
    headers: list[Text] = Field([], description="Columns that are headers, as text, instead of fields of the value.")
    tombstone: Text | None = Field(
        None,
        description="A boolean column: a row in which it is true is a record without a value, which deletes its key.",
    )
    compression: Literal["gzip", "snappy", "lz4", "zstd"] | None = Field(
        None, description="How records are compressed; not at all if not given."
    )

    @property
    def write(self) -> Literal["append"]:
        """What a topic was given is never taken back."""
        return "append"

    @field_validator("topic")
    @classmethod
    def _is_one_topic(cls, topic: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", re.sub(r"\$\{[^}]*\}", "v", topic)):
            raise ValueError("not a topic's name; write one with A-Z, a-z, 0-9, `.`, `_` and `-`, at most 249 of them")
        return topic

    @field_validator("tombstone")
    @classmethod
    def _deletes_a_key(cls, tombstone: str | None, info: ValidationInfo) -> str | None:
        if tombstone and info.data.get("key") == []:
            raise ValueError("`tombstone` without `key`; add `key: [...]`, the columns that identify what is deleted")
        if tombstone and tombstone in [*info.data.get("key", ()), *info.data.get("headers", ())]:
            raise ValueError(f"`{tombstone}` is in `key` or `headers`, too; name another column")
        return tombstone


Destination = Annotated[
    DatabaseDestination | FileDestination | ApiDestination | StreamDestination, Field(discriminator="type")
]


# --- partitions -----------------------------------------------------------------------------------------------


class Partitions(Model):
    """Parts of the rows, each of which can be run again on its own: by time, or by value."""

    by: Text = Field(description="Column, by its name after `map`; a row where it is NULL is in no partition.")
    every: Literal["hour", "day", "week", "month"] | None = Field(
        None, description="By time: how long each is, in UTC; weeks begin on Monday."
    )
    start: date | None = Field(None, description="By time: when the first one begins.")
    values: list[Text] = Field(
        [], description="By value: the values, instead of `every` and `start`.", validate_default=True
    )

    @field_validator("start")
    @classmethod
    def _starts_whole(cls, start: date | None, info: ValidationInfo) -> date | None:
        every = info.data.get("every")
        if start and ((every == "week" and start.weekday()) or (every == "month" and start.day != 1)):
            raise ValueError(f"not the beginning of a {every}; write {_whole(every, start)}")
        return start

    @field_validator("values")
    @classmethod
    def _by_time_or_value(cls, values: list[str], info: ValidationInfo) -> list[str]:
        if "every" in info.data and "start" in info.data:
            time = [name for name in ("every", "start") if info.data[name] is not None]
            if len(time) != (0 if values else 2):
                raise ValueError(
                    f"`values` beside `{time[0]}`; leave one of them out"
                    if values
                    else "`partitions` are neither by time nor by value; give `every` and `start`, or `values`"
                )
        if len(set(values)) < len(values):
            raise ValueError("one value twice; name each of them once")
        return values


def _whole(every: str, start: date) -> date:
    return start.replace(day=1) if every == "month" else start - timedelta(days=start.weekday())


# --- pipeline -------------------------------------------------------------------------------------------------


class Pipeline(Model):
    """One pipeline: what is read, by which rules it becomes what is written."""

    name: Name = Field(
        "",
        description="Told by the file's name if not given.",
        json_schema_extra=_without_default,
    )
    description: Text = Field(description="What it brings, for those who use the result.")
    owners: list[Owner] = Field([], description="team:name or an email address.")
    group: Name = Field("pipelines", description="Its group in Dagster.")
    source: Source = Field(description="Where rows come from; its `type` is database, file, api or stream.")
    transform: Transform = Field(Transform(), description="The rules that rows pass through.")
    destination: Destination = Field(description="Where rows go; its `type` is database, file, api or stream.")
    on_invalid: Literal["quarantine", "fail"] = Field(
        "quarantine", description="What becomes of a row that breaks a rule: set it aside, or fail the run."
    )
    quarantine_retention: Duration | None = Field(
        None,
        description="How long such rows wait: 90d; older ones are dropped when a run commits. For ever if not given.",
    )
    schedule: Cron | None = Field(None, description="Cron expression, in UTC.")
    partitions: Partitions | None = Field(
        None, description="Parts of the rows that are run, and replaced or merged, on their own."
    )

    @field_validator("destination")
    @classmethod
    def _replace_reads_everything(cls, destination: Destination, info: ValidationInfo) -> Destination:
        source = info.data.get("source")
        partly = [name for name in ("incremental", "conditional", "resume") if getattr(source, name, None)]
        partly += ["type: stream"] if isinstance(source, StreamSource) else []
        if destination.write == "replace" and partly:
            message = (
                f"`replace` with `{partly[0]}` would lose the older rows; use merge or append, or drop `{partly[0]}`"
            )
            raise PydanticCustomError("value_error", message, {"at": "write"})
        if getattr(destination, "delete_missing", False) and partly:
            message = f"`delete_missing` with `{partly[0]}` would delete what a run does not read; drop one of them"
            raise PydanticCustomError("value_error", message, {"at": "delete_missing"})
        if destination.write == "append" and {"incremental", "resume"} <= set(partly):
            message = "`append` with `resume` and `incremental` could load rows twice; use merge, or drop `resume`"
            raise PydanticCustomError("value_error", message, {"at": "write"})
        return destination

    @field_validator("destination")
    @classmethod
    def _can_delete(cls, destination: Destination, info: ValidationInfo) -> Destination:
        source = info.data.get("source")
        by_key = getattr(source, "tombstones", None) == "delete"
        if by_key and not isinstance(destination, DatabaseDestination):
            message = (
                "`tombstones: delete` needs a table that rows are merged into; load into a database, or say `skip`"
            )
            raise PydanticCustomError("value_error", message, {"at": "type"})
        if by_key and destination.write != "merge":
            message = f"`{destination.write}` with `tombstones: delete`, which deletes by key; say `write: merge`"
            raise PydanticCustomError("value_error", message, {"at": "write"})
        deletes = by_key or getattr(destination, "delete_missing", False) or source is None
        if getattr(destination, "soft_delete", None) and not deletes:
            message = "`soft_delete` without `delete_missing`; add `delete_missing: true`"
            raise PydanticCustomError("value_error", message, {"at": "soft_delete"})
        return destination

    @field_validator("destination")
    @classmethod
    def _does_not_read_what_it_writes(cls, destination: Destination, info: ValidationInfo) -> Destination:
        source = info.data.get("source")
        if isinstance(destination, StreamDestination) and isinstance(source, StreamSource):
            read = [topic for topic in source.topics if fnmatchcase(destination.topic, topic)]
            if read and source.brokers == destination.brokers:
                message = (
                    f"`{destination.topic}` is read by the same pipeline (`{read[0]}`), for ever; name another one"
                )
                raise PydanticCustomError("value_error", message, {"at": "topic"})
        return destination

    @field_validator("destination")
    @classmethod
    def _references_have_a_connection(cls, destination: Destination, info: ValidationInfo) -> Destination:
        checks: dict[str, Checks] = getattr(info.data.get("transform"), "checks", {})
        lost = [name for name, each in checks.items() if each.references and not each.references.connection]
        if lost and not hasattr(destination, "connection"):
            message = f"`references` of `{lost[0]}` has no connection, and the destination is none; give it one"
            raise PydanticCustomError("value_error", message, {"at": "type"})
        return destination

    @field_validator("destination")
    @classmethod
    def _has_child_tables(cls, destination: Destination, info: ValidationInfo) -> Destination:
        children: dict[str, ChildTable] = getattr(info.data.get("transform"), "children", {})
        for name, child in children.items():
            if wrong := _childless(name, child, destination):
                raise PydanticCustomError("value_error", wrong[0], {"at": wrong[1]})
        return destination

    @field_validator("partitions")
    @classmethod
    def _can_be_partitioned(cls, partitions: Partitions | None, info: ValidationInfo) -> Partitions | None:
        if not partitions or not {"source", "transform", "destination"} <= set(info.data):
            return partitions
        if wrong := _unpartitionable(partitions.by, partitions, info.data):
            raise PydanticCustomError("value_error", wrong, {"at": "by"})
        return partitions


def _childless(name: str, child: ChildTable, destination: Destination) -> tuple[str, str] | None:
    """Why a destination cannot have a child table, if it cannot, and which of its keys says so."""
    if not isinstance(destination, DatabaseDestination):
        return f"`children` need a database, for the table {name}; leave them out, and the list stays JSON", "type"
    if name.lower() == destination.table.lower():
        return f"`{name}` is a child table, too; give one of them another name", "table"
    if destination.history:
        return f"`history` with the child table {name}: its rows have no versions; leave one of them out", "history"
    if missing := [key for key in destination.key if key not in child.keys]:
        hint = f"add it to `keys` of {name}: {{{missing[0]}: ...}}"
        return f"`{missing[0]}` identifies a row, but the child table {name} does not have it; {hint}", "key"
    return None


def _unpartitionable(by: str, partitions: Partitions, data: dict[str, Any]) -> str | None:
    """Why a pipeline cannot have these partitions, if it cannot."""
    transform: Transform = data["transform"]
    database = data["source"].type == "database"
    conversion = transform.convert.get(by)
    kind = conversion.type if conversion else "timestamp"
    lacking = [name for name, child in transform.children.items() if by not in child.keys]
    reasons = {
        "`partitions` beside a stream, which is read on from where the last run stopped; leave them out": (
            data["source"].type == "stream"
        ),
        "`partitions` beside an API, which gives nothing back that could be replaced; load into a table or files": (
            data["destination"].type == "api"
        ),
        "`partitions` beside a topic, which gives nothing back that could be replaced; load into a table or files": (
            data["destination"].type == "stream"
        ),
        f"`partitions` need a folder of their own for each `{by}`; name it in `path`: data/lake/orders/{{{by}}}": (
            data["destination"].type == "file" and not _has_folder(data["destination"].path, by)
        ),
        f"a run replaces a partition, but {lacking and lacking[0]} cannot tell its rows; add `{by}` to its `keys`": (
            lacking and data["destination"].write != "merge"
        ),
        f"`{by}` is not in the result; name it in `map`": (
            not transform.keeps_rest and by not in [*transform.named_columns, *transform.derive]
        ),
        f"`{by}` is text in such files; convert it to date, timestamp or timestamptz": (
            partitions.every and not conversion and by not in transform.derive and _is_text(data["source"])
        ),
        f"`{by}` is converted to {kind}, which is no time; convert it to date, timestamp or timestamptz": (
            partitions.every and not kind.startswith(("date", "timestamp"))
        ),
        f"`{by}` is derived, so the database cannot be asked for its rows; use a column that the source has": (
            database and by in transform.derive
        ),
        f"`{by}` has a format, so the database cannot be asked for its rows; read it as a time by a `query`": (
            database and conversion and conversion.format
        ),
        f"`{by}` is converted, so the database cannot be asked for its values; leave it out of `convert`": (
            database and conversion and partitions.values
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def _is_text(source: Source) -> bool:
    """Whether every column of the source is text."""
    return isinstance(source, FileSource) and (source.format or file_format(source.path)) in {"csv", "fixed"}


def _has_folder(path: str, column: str) -> bool:
    """Whether the names of some folders tell the column's values."""
    segments = re.sub(r"\$\{[^}]*\}", "", path).split("/")
    return any(f"{{{column}}}" in segment and segment.count("{") == 1 for segment in segments)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a pipeline file, for editors: `# yaml-language-server: $schema=../etl/pipeline.schema.json`.

    The published file is made from it: `python -m etl.pipeline > etl/pipeline.schema.json`.
    """
    schema = Pipeline.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A Pivotal pipeline"}


if __name__ == "__main__":
    import json

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))  # noqa: T201

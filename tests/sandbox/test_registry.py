"""The sandbox's schema registry is as strict as one of Confluent's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sandbox.app import Sandbox
from sandbox.registry import PASSWORD, USER
from sandbox.serve import running

ORDER = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}


@pytest.fixture
def registry() -> Iterator[httpx.Client]:
    with (
        running(Sandbox()) as served,
        httpx.Client(base_url=f"{served.url}/registry", auth=(USER, PASSWORD)) as client,
    ):
        yield client


def registered(registry: httpx.Client, schema: Any, subject: str = "orders-value") -> httpx.Response:
    return registry.post(f"/subjects/{subject}/versions", json={"schema": json.dumps(schema)})


def test_a_schema_keeps_its_number(registry: httpx.Client) -> None:
    first, again = registered(registry, ORDER).json(), registered(registry, ORDER, "other-value").json()

    assert first == again == {"id": 1}
    assert json.loads(registry.get("/schemas/ids/1").json()["schema"]) == ORDER
    assert registry.get("/subjects/other-value/versions/1").json()["id"] == 1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([{"name": "id", "type": "long"}, {"name": "note", "type": "string", "default": ""}], 200),
        ([{"name": "id", "type": "long"}, {"name": "note", "type": "string"}], 409),
        ([{"name": "id", "type": "nothing"}], 422),
    ],
)
def test_a_new_version_must_read_what_the_last_one_has_written(
    registry: httpx.Client, fields: list[dict[str, str]], status: int
) -> None:
    registered(registry, ORDER)

    assert registered(registry, {**ORDER, "fields": fields}).status_code == status


@pytest.mark.parametrize("path", ["/schemas/ids/7", "/subjects/orders-value/versions/1"])
def test_what_is_not_there_is_told(registry: httpx.Client, path: str) -> None:
    answer = registry.get(path)

    assert (answer.status_code, answer.json()["error_code"] // 100) == (404, 404)


def test_who_is_not_known_gets_nothing(registry: httpx.Client) -> None:
    assert registry.get("/schemas/ids/1", auth=("someone", "else")).status_code == 401

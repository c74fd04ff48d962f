from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given

from errors import PivotalError
from events.envelope import Event, from_cloudevent, from_http, to_cloudevent, to_http
from tests.events.samples import event
from tests.events.strategies import EVENTS

LEAST = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "shop.opened"}


@given(EVENTS)
def test_an_event_comes_back_from_a_cloudevent_as_it_was(made: Event) -> None:
    assert from_cloudevent(json.loads(json.dumps(to_cloudevent(made)))) == made


@given(EVENTS)
def test_a_cloudevent_keeps_to_the_specification(made: Event) -> None:
    told = to_cloudevent(made)

    assert told["specversion"] == "1.0"
    assert all(re.fullmatch(r"[a-z0-9]+", name) for name in told), "attribute names: lower-case letters and digits"
    assert all(value not in ("", None) for name, value in told.items() if name != "data"), "attributes are not empty"
    assert datetime.fromisoformat(told["time"]) == made.timestamp


@given(EVENTS)
def test_an_event_comes_back_from_its_own_json_as_it_was(made: Event) -> None:
    assert Event.model_validate_json(made.model_dump_json()) == made


def test_a_foreign_cloudevent_needs_no_more_than_the_specification_asks_for() -> None:
    made = from_cloudevent(LEAST)

    assert (made.type, made.data, made.version) == ("shop.opened", {}, 1)
    assert (made.metadata.source, made.metadata.dedupe_key, made.metadata.correlation_id) == ("/shop", "1", "1")
    assert (made.aggregate_type, made.aggregate_id) == ("event", "1")
    assert abs((datetime.now(UTC) - made.timestamp).total_seconds()) < 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"specversion": "0.3"}, "specversion is not '1.0'"),
        ({"type": "Shop.Opened"}, "type: String should match pattern"),
        ({"data": [1]}, "data: Input should be a valid dictionary"),
        ({"data_base64": "AAEC"}, "data is binary (data_base64)"),
        ({"time": "yesterday"}, "timestamp: "),
        ({"time": "2024-01-01T00:00:00"}, "timestamp: Input should have timezone info"),
        ({"id": 7}, "id: Input should be a valid string"),
    ],
)
def test_what_does_not_fit_the_envelope_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(PivotalError, match=re.escape(message)):
        from_cloudevent(LEAST | change)


def test_every_attribute_that_is_missing_is_named() -> None:
    with pytest.raises(PivotalError, match="has no id and no source and no type"):
        from_cloudevent({"specversion": "1.0"})


def test_an_event_without_an_aggregate_is_refused() -> None:
    with pytest.raises(ValueError, match="aggregate_id"):
        Event.model_validate(event().model_dump() | {"aggregate_id": ""})


def test_an_error_does_not_show_what_the_event_holds() -> None:
    with pytest.raises(ValueError, match="data") as raised:
        Event.model_validate(event().model_dump() | {"data": ["whsec_secret"]})

    assert "whsec_secret" not in str(raised.value)


# --- over HTTP -------------------------------------------------------------------------------------------------------


@given(EVENTS)
def test_an_event_comes_back_from_a_request_in_binary_mode_as_it_was(made: Event) -> None:
    headers, body = to_http(made)

    assert from_http({name.title(): value for name, value in headers.items()}, body) == made
    assert all(re.fullmatch(r"[!-~]*", value) for value in headers.values()), "headers are printable ASCII"
    assert not any('"' in value for value in headers.values())


@given(EVENTS)
def test_an_event_comes_back_from_a_request_in_structured_mode_as_it_was(made: Event) -> None:
    headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}

    assert from_http(headers, json.dumps(to_cloudevent(made)).encode()) == made


def test_attributes_are_headers_and_data_is_the_body() -> None:
    """The example of the HTTP binding, 3.1.3.2: `Euro € 😀`."""
    made = from_cloudevent({**LEAST, "subject": "Euro \u20ac \U0001f600", "data": {"a": 1}})

    headers, body = to_http(made)

    assert headers["ce-subject"] == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    assert (headers["content-type"], headers["ce-specversion"], headers["ce-id"]) == ("application/json", "1.0", "1")
    assert json.loads(body) == {"a": 1}


BINARY = {f"ce-{name}": value for name, value in LEAST.items()}


@pytest.mark.parametrize(
    ("written", "meant"),
    [("a%20b", "a b"), ("%e2%82%ac", "\u20ac"), ('"a \\"b\\" %25"', 'a "b" %'), ("100%", "100%"), ("/a?b=c", "/a?b=c")],
)
def test_a_foreign_header_is_read_however_it_is_written(written: str, meant: str) -> None:
    made = from_http({**BINARY, "ce-subject": written}, b"")

    assert (made.aggregate_id, made.data, made.version) == (meant, {}, 1)


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({}, b"", "specversion is not '1.0'"),
        (BINARY, b"{}", "data is not JSON, but nothing known"),
        ({**BINARY, "Content-Type": "text/xml"}, b"<a/>", "data is not JSON, but text/xml"),
        ({**BINARY, "Content-Type": "application/json"}, b"{", "is not JSON: EOF"),
        ({**BINARY, "Content-Type": "application/json"}, b'{"n": NaN}', "is not JSON: expected value"),
        ({**BINARY, "Content-Type": "application/json"}, b"[1]", "holds no object, but list"),
        ({"Content-Type": "application/cloudevents+json"}, b"[]", "holds no object, but list"),
        ({"Content-Type": "application/cloudevents-batch+json"}, b"[]", "holds no object, but list"),
        ({**BINARY, "ce-dataversion": "x"}, b"", "version: Input should be a valid integer"),
    ],
)
def test_a_request_that_tells_of_no_event_is_refused(headers: dict[str, str], body: bytes, message: str) -> None:
    with pytest.raises(PivotalError, match=re.escape(message)):
        from_http(headers, body)

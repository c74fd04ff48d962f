from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given

from errors import PivotalError
from events.envelope import Event, from_cloudevent, to_cloudevent
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

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.envelope import Event
from gateway.providers.sendgrid import sendgrid_events
from gateway.providers.stripe import stripe_events
from gateway.refusal import RefusedError
from tests.events.strategies import JSON, TEXT
from tests.gateway.signing import body_of, sendgrid_event, stripe_event

SUBSCRIBED = {"id": "in_1", "object": "invoice"}


def from_stripe(**fields: object) -> Event:
    [event] = stripe_events(body_of(stripe_event("evt_1", **fields)))
    return event


def from_sendgrid(**fields: object) -> Event:
    [event] = sendgrid_events(body_of([sendgrid_event("1", **fields)]))
    return event


@pytest.mark.parametrize(
    ("thing", "aggregate"),
    [
        ({"id": "sub_1", "object": "subscription"}, "subscription/sub_1"),
        ({"id": "in_1", "object": "invoice"}, "invoice/in_1"),
        (SUBSCRIBED | {"subscription": "sub_1"}, "subscription/sub_1"),
        (SUBSCRIBED | {"subscription": {"id": "sub_1", "object": "subscription"}}, "subscription/sub_1"),
        (SUBSCRIBED | {"parent": {"subscription_details": {"subscription": "sub_1"}}}, "subscription/sub_1"),
        (SUBSCRIBED | {"parent": None, "subscription": None}, "invoice/in_1"),
        (SUBSCRIBED | {"parent": {"quote_details": {"quote": "qt_1"}}}, "invoice/in_1"),
        ({"object": "balance"}, "event/evt_1"),
        ({"object": "invoice", "id": None}, "event/evt_1"),
        ("not an object", "event/evt_1"),
        (None, "event/evt_1"),
    ],
)
def test_stripes_aggregate_is_what_order_matters_for(thing: object, aggregate: str) -> None:
    event = from_stripe(data={"object": thing})

    assert f"{event.aggregate_type}/{event.aggregate_id}" == aggregate


def test_a_thin_event_of_stripes_names_its_object_and_writes_its_time_in_words() -> None:
    told = {
        "id": "evt_1",
        "object": "v2.core.event",
        "type": "v2.core.account[requirements].updated",
        "created": "2024-05-01T12:00:00.000Z",
        "related_object": {"id": "acct_1", "type": "v2.core.account", "url": "/v2/core/accounts/acct_1"},
    }
    [event] = stripe_events(body_of(told))

    assert event.type == "stripe.v2.core.account_requirements_.updated"
    assert (event.aggregate_type, event.aggregate_id) == ("v2.core.account", "acct_1")
    assert event.timestamp == datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert event.data == told


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("invoice.paid", "stripe.invoice.paid"),
        ("Some.NEW-thing!", "stripe.some.new_thing_"),
        ("..a..b.", "stripe.a.b"),
        ("ünïcode", "stripe._n_code"),
        ("x" * 500, "stripe." + "x" * 193),
        ("a" * 192 + ".b", "stripe." + "a" * 192),
    ],
)
def test_unknown_types_are_kept_in_letters_that_fit(name: str, type_: str) -> None:
    event = from_stripe(type=name)

    assert event.type == type_
    assert event.data["type"] == name


@pytest.mark.parametrize("created", [None, "soon", 10**30, -(10**30), [], {}, "9999-12-31T23:59:59-12:00"])
@pytest.mark.parametrize("make", [lambda at: from_stripe(created=at), lambda at: from_sendgrid(timestamp=at)])
def test_an_event_without_a_time_that_can_be_read_happened_now(
    make: Callable[[object], Event], created: object
) -> None:
    before = datetime.now(UTC)

    assert before <= make(created).timestamp <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("fields", "aggregate"),
    [
        ({"sg_message_id": "abc.filter0001.1.2-0"}, "message/abc"),
        ({"sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0"}, "message/14c5d75ce93.dfd.64b469"),
        ({"sg_message_id": "TnGLI-2IRWiKdAAaIeScpw.recvd-69479bf9c9-lwpmv-1-647"}, "message/TnGLI-2IRWiKdAAaIeScpw"),
        ({"sg_message_id": ".filter0001"}, "event/1"),
        ({"sg_message_id": "abc"}, "message/abc"),
        ({"sg_message_id": None}, "event/1"),
        ({"sg_message_id": ""}, "event/1"),
        ({"sg_message_id": 7}, "event/1"),
    ],
)
def test_sendgrids_aggregate_is_the_message(fields: dict[str, object], aggregate: str) -> None:
    event = from_sendgrid(**fields)

    assert f"{event.aggregate_type}/{event.aggregate_id}" == aggregate


def test_an_item_without_an_id_is_known_again_by_what_it_says() -> None:
    one, same, other = sendgrid_events(
        body_of(
            [sendgrid_event(sg_event_id="", email=name) for name in ("a@example.com", "a@example.com", "b@example.com")]
        )
    )

    assert one.metadata.dedupe_key == same.metadata.dedupe_key != other.metadata.dedupe_key


def test_numbers_of_any_size_survive() -> None:
    assert from_stripe(big=2**80, exact="0.10").data["big"] == 2**80


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b'"evt_1"', "the body is not a JSON object"),
        (b"{}", "the body has no 'id'"),
        (b'{"id": ""}', "the body has no 'id'"),
        (b'{"id": 7}', "the body has no 'id'"),
        (b'{"id": "evt_1"}', "the body has no 'type'"),
        (b'{"id": "evt_1", "type": null}', "the body has no 'type'"),
        (b'{"id": "evt_1", "type": "a", "x": NaN}', "the body is not JSON"),
    ],
)
def test_what_is_no_event_of_stripes_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as raised:
        stripe_events(body)

    assert raised.value.status == 400


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{}", "not a JSON list of objects"),
        (b"[1]", "not a JSON list of objects"),
        (b"[{}]", "the body has no 'event'"),
        (b'[{"event": []}]', "the body has no 'event'"),
    ],
)
def test_what_is_no_batch_of_sendgrids_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as raised:
        sendgrid_events(body)

    assert raised.value.status == 400


OBJECTS = st.dictionaries(
    st.sampled_from(["id", "type", "event", "created", "timestamp", "data", "object", "sg_message_id", "sg_event_id"])
    | TEXT,
    JSON,
    max_size=6,
)


@given(OBJECTS, TEXT, TEXT)
def test_any_object_of_stripes_with_an_id_and_a_type_is_kept_whole(told: dict[str, Any], id_: str, type_: str) -> None:
    told |= {"id": id_, "type": type_}

    [event] = stripe_events(body_of(told))

    assert event.data == json.loads(body_of(told))
    assert event.metadata.dedupe_key == id_


@given(st.lists(OBJECTS, max_size=4))
def test_any_batch_of_sendgrids_is_kept_whole_or_refused(told: list[dict[str, Any]]) -> None:
    fits = all(isinstance(item.get("event"), str) and item["event"] for item in told)

    assert outcome(sendgrid_events, body_of(told)) == (json.loads(body_of(told)) if fits else 400)


@given(st.binary(max_size=200) | JSON.map(body_of))
def test_no_body_is_worse_than_malformed(body: bytes) -> None:
    for read in (stripe_events, sendgrid_events):
        assert isinstance(outcome(read, body), list) or outcome(read, body) == 400


def outcome(read: Callable[[bytes], list[Event]], body: bytes) -> list[dict[str, Any]] | int:
    """What is kept, or the status that says no."""
    try:
        return [event.data for event in read(body)]
    except RefusedError as refusal:
        return refusal.status

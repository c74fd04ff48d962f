"""Any event that the envelope lets through."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from events.envelope import Event, Metadata

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
METADATA = st.builds(
    Metadata,
    source=TEXT,
    dedupe_key=TEXT,
    correlation_id=TEXT,
    causation_id=st.none() | TEXT,
    user_id=st.none() | TEXT,
    organization_id=st.none() | TEXT,
    trace_id=st.none() | TEXT,
)
EVENTS = st.builds(
    Event,
    type=st.from_regex(r"[a-z0-9_]{1,9}(\.[a-z0-9_]{1,9}){0,3}", fullmatch=True),
    aggregate_type=TEXT,
    aggregate_id=TEXT,
    data=st.dictionaries(TEXT, JSON, max_size=5),
    metadata=METADATA,
    id=TEXT,
    timestamp=st.datetimes(
        min_value=datetime(1900, 1, 1),  # noqa: DTZ001
        max_value=datetime(2200, 1, 1),  # noqa: DTZ001
        timezones=st.timezones() | st.just(UTC),
    ),
    version=st.integers(1, 1000),
)

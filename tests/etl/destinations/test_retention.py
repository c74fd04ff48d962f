"""Rows leave the quarantine by their age, and no others: random findings, on every kind of destination."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from tests.etl.destinations.backends import Backend, bad, load

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_exactly_the_rows_that_were_last_found_before_the_limit_leave(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(f"retention {backend.kind}")
    last: dict[int, datetime] = {}
    for number in range(4):
        at = START + timedelta(days=number, microseconds=dice.randrange(3))
        records = dice.sample(range(12), 5)
        clock = SimpleNamespace(now=lambda _, at=at: at, fromisoformat=datetime.fromisoformat)
        monkeypatch.setattr("etl.destinations.quarantine.datetime", clock)
        load(backend.destination(), quarantine=[bad("x", record) for record in records], run_id=f"run-{number}")
        last |= dict.fromkeys(records, at)
    limit = dice.choice(sorted(last.values())) + timedelta(microseconds=dice.choice([-1, 0, 1]))

    with backend.destination().begin("run-last", expired=limit) as running:
        running.loaded()
        expired = running.commit(None)

    young = {record: at for record, at in last.items() if at >= limit}
    found = {row.bad.origin["record"]: row.at for row in backend.destination().quarantined()}
    assert found == young
    assert expired == len(last) - len(young)

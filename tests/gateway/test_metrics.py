"""What Prometheus reads from the receiver."""

from __future__ import annotations

import math
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.conftest import Gateway
from tests.gateway.raw import exchange, stripe


def scraped(gateway: Gateway) -> dict[tuple[str, ...], float]:
    answer = gateway.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_answers_are_counted_by_provider_and_status(gateway: Gateway) -> None:
    before = scraped(gateway)

    for raw in (stripe(), stripe(), stripe(b"{}"), stripe(path="/elsewhere"), stripe(Host=None)):
        exchange(gateway.port, raw)
    after = scraped(gateway)

    def more(*labels: str) -> float:
        return after["pivotal_webhooks_total", *labels] - before.get(("pivotal_webhooks_total", *labels), 0)

    assert [more("stripe", "200"), more("stripe", "400"), more("", "404"), more("", "400")] == [2, 1, 1, 1]


def test_the_log_is_shown_its_commits_what_waits_and_its_head(gateway: Gateway, tmp_path: Path) -> None:
    before = scraped(gateway)

    exchange(gateway.port, stripe())
    after = scraped(gateway)

    commits = ("pivotal_log_commit_seconds_count",)
    assert after[commits] - before[commits] == 1
    assert after["pivotal_log_waiting_events",] == 0
    assert after["pivotal_log_head",] == 1

    (tmp_path / "events.db").unlink()
    assert math.isnan(scraped(gateway)["pivotal_log_head",])

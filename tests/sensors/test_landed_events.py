from __future__ import annotations

import time
from types import SimpleNamespace

import dagster as dg
import pytest

from assets.events import process_landed_events
from errors import EventLogError
from events.log import EventLog
from resources.event_log import EventLogResource
from sensors import landed_events
from sensors.landed_events import TAG, landed_events_sensor
from tests.projections.samples import NOON, event, sendgrid_event

STARTED = dg.DagsterEventType.RUN_START
SUCCEEDED = dg.DagsterEventType.RUN_SUCCESS
FAILED = dg.DagsterEventType.RUN_FAILURE
CANCELED = dg.DagsterEventType.RUN_CANCELED


class Ticks:
    """Evaluates the sensor as the daemon does: with the cursor that the last tick left."""

    def __init__(self, instance: dg.DagsterInstance, event_log: EventLogResource) -> None:
        self.instance = instance
        self.event_log = event_log
        self.cursor: str | None = None

    def tick(self) -> list[tuple[int, int]]:
        """The ranges that were asked for."""
        asked = []
        for request in self.result().run_requests or []:
            after, until, _ = map(int, str(request.run_key).split("-"))
            assert request.run_config == {"ops": {"apply_landed_events": {"config": {"until": until}}}}
            asked.append((after, until))
        return asked

    def says(self) -> str:
        """Why nothing was asked for, and what waits."""
        reason = self.result().skip_reason
        assert reason
        return str(reason.skip_message)

    def result(self) -> dg.SensorResult:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"event_log": self.event_log}
        )
        found = landed_events_sensor(context)
        if isinstance(found, dg.SkipReason):
            return dg.SensorResult(skip_reason=found)
        assert isinstance(found, dg.SensorResult)
        self.cursor = found.cursor
        return found

    def run(self, became: dg.DagsterEventType) -> None:
        """What became of the run that was asked for last."""
        assert self.cursor
        run = self.instance.create_run_for_job(process_landed_events, tags={TAG: self.cursor})
        self.instance.report_dagster_event(dg.DagsterEvent(became.value, run.job_name), run.run_id)


@pytest.fixture
def ticks(instance: dg.DagsterInstance, event_log: EventLogResource) -> Ticks:
    return Ticks(instance, event_log)


def land(log: EventLog, *keys: str) -> None:
    log.publish([sendgrid_event("delivered", key) for key in keys])


def stop_the_clock(monkeypatch: pytest.MonkeyPatch, after: float = 0) -> None:
    """For the sensor it stays this moment, or so many seconds after it."""
    moment = time.time() + after
    monkeypatch.setattr(landed_events, "time", SimpleNamespace(time=lambda: moment))


def test_an_empty_log_asks_for_nothing(ticks: Ticks) -> None:
    assert ticks.says() == "every event up to 0 is in the tables"


def test_landed_events_ask_for_one_run(ticks: Ticks, log: EventLog) -> None:
    land(log, "a", "b", "c")
    assert ticks.tick() == [(0, 3)]


def test_a_request_is_not_repeated_while_its_run_is_at_work(ticks: Ticks, log: EventLog) -> None:
    land(log, "a")
    ticks.tick()
    ticks.run(STARTED)
    land(log, "b", "c")
    assert ticks.says().startswith("a run is at work on events 1 to 1; ")


def test_every_tick_says_how_many_events_wait_and_how_old_the_oldest_is(
    ticks: Ticks, log: EventLog, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log.publish([event("pivotal.pipeline.completed", "p1", NOON, {})])
    land(log, "a", "b")
    waiting = "up to 2 events wait, the oldest for 12 s"
    moment = log.read(1, 1)[0].recorded_at.timestamp() + 12.3
    monkeypatch.setattr(landed_events, "time", SimpleNamespace(time=lambda: moment))
    assert ticks.tick() == [(1, 3)]
    assert f"asks for a run over events 2 to 3; {waiting}" in capfd.readouterr().err
    ticks.run(STARTED)
    assert ticks.says() == f"a run is at work on events 2 to 3; {waiting}"
    ticks.cursor = "1-3-9"  # its ninth attempt is followed by a long wait
    ticks.run(FAILED)
    assert ticks.says().endswith(f"; {waiting}")
    ticks.run(SUCCEEDED)
    assert ticks.says() == "every event up to 3 is in the tables"


def test_the_next_range_follows_the_one_that_succeeded(ticks: Ticks, log: EventLog) -> None:
    land(log, "a")
    ticks.tick()
    ticks.run(SUCCEEDED)
    land(log, "b", "c")
    assert ticks.tick() == [(1, 3)]
    ticks.run(SUCCEEDED)
    assert ticks.says() == "every event up to 3 is in the tables"


@pytest.mark.parametrize("end", [FAILED, CANCELED])
def test_a_range_that_failed_is_asked_for_again(
    ticks: Ticks, log: EventLog, end: dg.DagsterEventType, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(log, "a")
    first = ticks.result()
    stop_the_clock(monkeypatch)
    ticks.run(end)
    land(log, "b")
    assert ticks.says().startswith("attempt 1 at events 1 to 1 failed; the next is due in ")
    stop_the_clock(monkeypatch, after=3)
    again = ticks.result()
    assert [one.run_config for one in again.run_requests or []] == [one.run_config for one in first.run_requests or []]
    assert again.cursor != first.cursor


def test_the_wait_between_attempts_grows_to_a_limit(
    ticks: Ticks, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(log, "a")
    ticks.tick()
    for attempt in range(1, 10):
        stop_the_clock(monkeypatch)
        ticks.run(FAILED)
        assert ticks.says().startswith(f"attempt {attempt} at events 1 to 1 failed")
        stop_the_clock(monkeypatch, after=landed_events.LONGEST_WAIT)
        assert ticks.tick() == [(0, 1)]
    stop_the_clock(monkeypatch, after=5 - landed_events.LONGEST_WAIT)
    ticks.run(FAILED)
    assert "attempt 10 " in ticks.says()


def test_a_request_that_became_no_run_is_asked_for_again_with_the_same_key(ticks: Ticks, log: EventLog) -> None:
    land(log, "a")
    first, second = ticks.result(), ticks.result()
    assert [one.run_key for one in first.run_requests or []] == [one.run_key for one in second.run_requests or []]


def test_a_backlog_is_asked_for_in_parts(ticks: Ticks, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landed_events, "MOST_EVENTS", 2)
    land(log, "a", "b", "c")
    assert ticks.tick() == [(0, 2)]
    ticks.run(SUCCEEDED)
    assert ticks.tick() == [(2, 3)]


def test_events_that_no_table_takes_ask_for_no_run(ticks: Ticks, log: EventLog) -> None:
    log.publish([event("pivotal.pipeline.completed", "p1", NOON, {})])
    assert ticks.says() == "every event up to 1 is in the tables"
    land(log, "a")
    assert ticks.tick() == [(1, 2)]


def test_the_log_may_be_in_postgresql(ticks: Ticks, postgres_url: str) -> None:
    ticks.event_log = EventLogResource(url=postgres_url)
    with ticks.event_log.open() as log:
        land(log, "a", "b")
    assert ticks.tick() == [(0, 2)]
    ticks.run(STARTED)
    assert ticks.says().startswith("a run is at work on events 1 to 2; up to 2 events wait")


def test_a_log_that_started_anew_is_read_from_its_start(ticks: Ticks, log: EventLog) -> None:
    ticks.cursor = "50-80-1"
    ticks.run(SUCCEEDED)
    land(log, "a")
    assert ticks.tick() == [(0, 1)]


def test_a_log_that_cannot_be_read_leaves_the_cursor(ticks: Ticks) -> None:
    ticks.event_log = EventLogResource(url="sqlite:////dev/null/events.db")
    with pytest.raises(EventLogError):
        ticks.tick()
    assert ticks.cursor is None


def test_it_starts_by_itself_and_looks_as_often_as_dagster_can() -> None:
    assert landed_events_sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert landed_events_sensor.minimum_interval_seconds == 1

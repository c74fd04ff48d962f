"""Dagster sensors: landed events become runs; failed runs become alerts."""

from __future__ import annotations

from sensors.failures import run_failure_alerts
from sensors.landed_events import landed_events_sensor

all_sensors = [landed_events_sensor, run_failure_alerts]

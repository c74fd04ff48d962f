"""Dagster schedules: timed syncs, read from the pipelines' own YAML."""

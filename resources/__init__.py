"""Dagster resources: thin, typed wrappers that hand out integrations."""

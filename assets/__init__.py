"""Dagster assets: one per pipeline, built from its YAML, and the tables that landed events maintain."""

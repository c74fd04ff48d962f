"""Dagster sensors: landed events become runs."""

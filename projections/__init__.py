"""What landed events do to tables: one module a provider. Knows nothing of Dagster."""

"""The engine: extract -> transform -> load over streams of Arrow batches. Knows nothing of Dagster."""

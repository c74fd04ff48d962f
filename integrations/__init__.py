"""Clients of the outside world, usable without Dagster. Importing this package pulls in no SDK."""

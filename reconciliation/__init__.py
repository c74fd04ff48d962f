"""What webhooks have missed: read from the providers themselves, sent through the same door. Knows nothing of Dagster.

Everything is published before the place to go on from is kept: killed anywhere, the next reading starts where the last
complete one did, and the log knows what it has already by (source, dedupe key).
"""

"""Paths into JSON: `data.-1.id` is the id of the last one in data."""

from __future__ import annotations

from typing import Any

MISSING = object()


def value_at(document: Any, path: str) -> Any:  # noqa: ANN401  (JSON can be anything)
    """What is at a path; `MISSING` if there is nothing."""
    for part in path.split("."):
        if isinstance(document, dict):
            document = document.get(part, MISSING)
        elif isinstance(document, list) and part.lstrip("-").isdigit() and -len(document) <= int(part) < len(document):
            document = document[int(part)]
        else:
            return MISSING
    return document

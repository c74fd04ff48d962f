"""The keys of a stream's records as rows: the fields of an object, or the one value that a key is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from etl.nested import Shape, parse, without_collector
from etl.pipeline import StreamSource
from etl.sources.records import Alone, Decoded, Decoder, Value, registry_of

ITSELF = ""
"""The column of keys that are one value."""


def key_decoder_of(source: StreamSource) -> Decoder:
    """Reads what a pipeline file says that keys are."""
    match source.key_format:
        case "text":
            return TextKeys()
        case "avro":
            from etl.sources.avro import AvroKeys

            return AvroKeys(registry_of(source))
    return JsonKeys()


class TextKeys(Alone):
    """Text as it is."""

    name = "text"

    def decode(self, values: Sequence[Value]) -> Decoded:
        """See `Decoder.decode`."""
        texts: list[str | None] = []
        bad: dict[int, str] = {}
        for place, value in enumerate(values):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                bad[place] = "the key is not UTF-8"
        return Decoded(pa.record_batch({ITSELF: pa.array(texts, pa.string())}), bad)


class JsonKeys(Alone):
    """JSON: an object, or one value; numbers stay exact (see `Shape`)."""

    name = "json"

    def __init__(self) -> None:
        self._shape = Shape()

    def decode(self, values: Sequence[Value]) -> Decoded:
        """See `Decoder.decode`."""
        records: list[dict[str, Any]] = []
        bad: dict[int, str] = {}
        with without_collector():
            for place, value in enumerate(values):
                try:
                    record = None if value is None else parse(value)
                except ValueError:
                    bad[place] = "the key is not JSON (`key_format: text` takes it as it is)"
                    continue
                records.append(record if isinstance(record, dict) else {ITSELF: record})
            return Decoded(self._shape.records(records), bad)

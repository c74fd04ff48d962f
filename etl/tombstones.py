"""`tombstones: delete`: records of a stream without a value become keys of the table, whose rows are deleted.

A tombstone has nothing but its record's key, and what is known of a record beside its value (`metadata`). So it goes
through those rules alone that make the columns of the destination's `key`:

- What these are made of, by `map`, `convert`, `validate` and `derive`, must be there: a field of the record's key, by
  the name that it has in values or by the one after `map`, and not NULL; the record's key itself, if it is one value
  and one column is wanted; or a column of `metadata`. A key that lacks it, or breaks a rule of it, is quarantined.
- All other rules are about columns that are not there, so they refuse no deletion. Neither do `unique` and
  `references`: a row may come again after it is gone, and what it refers to may be gone before it.
- `filter` is asked where it looks at nothing but such columns, and those of `metadata`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from errors import RuleError
from etl.expressions import columns
from etl.nested import flatten
from etl.pipeline import Pipeline, StreamSource, Transform
from etl.rules import Rules
from etl.sources.keys import ITSELF, key_decoder_of
from etl.sources.records import Decoder
from etl.stream import BadRow, Batch, Broken, Tombstones

RULE = "tombstones: delete"
"""What the quarantine calls the rule that a tombstone tells the key of a row."""

Places = NDArray[np.int64]


class KeyRulesError(RuleError):
    """Tombstones of a pipeline can delete nothing.

    Args:
        message: Why.
        at: Which key of the pipeline file says so.
        hint: As in `PivotalError`.
    """

    def __init__(self, message: str, *, at: Sequence[str], hint: str) -> None:
        super().__init__(message, hint=hint)
        self.at = tuple(at)


@dataclass(frozen=True, slots=True)
class KeyRules:
    """The rules that make the columns of a destination's `key`.

    Args:
        fields: The columns that come from a record's key, by their names after `map` -> as the source calls them.
        known: The same, of those that are known of a record beside its value.
        transform: The rules on them; without `map`.
    """

    fields: Mapping[str, str]
    known: Mapping[str, str]
    transform: Transform


@dataclass(frozen=True, slots=True)
class Gone:
    """What became of the tombstones of a batch: given = keys + bad + filtered.

    Args:
        keys: The keys whose rows go.
        places: Which of the tombstones they are of.
        before: For each, how many of the batch's rows that are loaded came before it.
        bad: The tombstones that tell no key.
        filtered: How many were filtered out.
    """

    keys: pa.RecordBatch
    places: Places
    before: pa.Array
    bad: Sequence[BadRow]
    filtered: int


def key_rules(pipeline: Pipeline) -> KeyRules:
    """Picks the rules that a tombstone goes through.

    Raises:
        KeyRulesError: No tombstone can tell the key of a row.
        RuleError: An expression cannot be read.
    """
    source, transform, key = pipeline.source, pipeline.transform, getattr(pipeline.destination, "key", ())
    metadata = source.added_columns if isinstance(source, StreamSource) else []
    origin = {new: old for old, new in transform.map.items() if old != "*"}
    spelling = _Spelling([*transform.named_columns, *transform.derive, *metadata])
    needed, derived = _made_of(key, transform, spelling)
    _refuse_of_one_record({origin.get(name, name) for name in needed}, metadata)
    there = needed | {name for name in [*metadata, *origin] if origin.get(name, name) in metadata}
    filters = []
    for condition in transform.filter:
        looked_at, made = _made_of(columns(condition), transform, spelling)
        if looked_at <= there:
            filters.append(condition)
            needed, derived = needed | looked_at, derived | made
    sources = {name: origin.get(name, name) for name in sorted(needed)}
    known = {name: old for name, old in sources.items() if old in metadata}
    fields = {name: old for name, old in sources.items() if name not in known}
    if len(fields) > 1 and getattr(source, "key_format", "") == "text":
        raise KeyRulesError(
            f"`key_format: text` is one value, but the destination's key is made of {' and '.join(fields)}",
            at=("source", "key_format"),
            hint="say `json` or `avro`, if records' keys have these as fields",
        )
    return KeyRules(fields, known, _only(transform, needed, derived, filters))


class _Spelling:
    """Gives a column one name, however expressions spell it.

    Args:
        names: Those that the rules, and `metadata`, have.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = set(names)
        self._alike = {name.lower(): name for name in reversed(names)}

    def __call__(self, name: str) -> str:
        return name if name in self._exact else self._alike.setdefault(name.lower(), name)


def _made_of(names: Iterable[str], transform: Transform, spelling: _Spelling) -> tuple[set[str], set[str]]:
    """The columns that some are made of, by their names after `map`; and those of `derive` on the way."""
    needed, derived = set(map(spelling, names)), set[str]()
    for name, text in reversed(transform.derive.items()):
        if name in needed:
            needed, derived = (needed - {name}) | set(map(spelling, columns(text))), derived | {name}
    return needed, derived


def _refuse_of_one_record(sources: Collection[str], metadata: Sequence[str]) -> None:
    for name in {"kafka_offset", "kafka_timestamp"}.intersection(sources, metadata):
        raise KeyRulesError(
            f"the destination's key is made of {name}, which is each record's own, so no tombstone would delete a row",
            at=("destination", "key"),
            hint="name what the record's key tells, or kafka_key with `metadata: [key]`",
        )
    if not sources:
        raise KeyRulesError(
            "the destination's key is made of no column, so it is the same for each row",
            at=("destination", "key"),
            hint="name what the record's key tells",
        )


def _only(transform: Transform, needed: Collection[str], derived: Collection[str], filters: list[str]) -> Transform:
    """The rules on some columns; without those that look at other rows."""
    checks = {name: each for name, each in transform.checks.items() if name in needed}
    return Transform(
        convert={name: kind for name, kind in transform.convert.items() if name in needed},
        checks={name: each.model_copy(update={"unique": False, "references": None}) for name, each in checks.items()},
        derive={name: text for name, text in transform.derive.items() if name in derived},
        filter=filters,
    )


class Deletions:
    """Makes keys of the tombstones of one run.

    Args:
        pipeline: The pipeline.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._key: list[str] = list(getattr(pipeline.destination, "key", ()))
        self._opened = ExitStack()

    def apply(self, tombstones: Tombstones, loaded: Places) -> Gone:
        """What becomes of a batch's tombstones.

        Args:
            tombstones: The tombstones.
            loaded: Which of the batch's rows are loaded, in order.

        Raises:
            KeyRulesError: None of them can tell the key of a row.
            RuleError: The rules do not fit the columns of their keys.
            IntegrationError: The registry that has the keys' schemas does not answer.
        """
        broken: dict[int, Sequence[Broken]] = {}
        places, told = self._columns(tombstones, broken)
        done = self._rules.apply(Batch(told, lambda index: {"place": int(places[index])}))
        broken |= {int(bad.origin["place"]): bad.broken for bad in done.bad}
        places = places[np.array(done.places() if done.places else (), np.int64)]
        keys = done.good.select(self._key)
        whole = _present(dict(zip(self._key, keys.columns, strict=True)), places, "there is no {} to delete by", broken)
        places = places[whole]
        before = np.searchsorted(loaded, np.array(tombstones.before, np.int64)[places])
        return Gone(
            keys.filter(pa.array(whole)),
            places,
            pa.array(before, pa.int64()),
            [tombstones.bad(place, why) for place, why in sorted(broken.items())],
            done.filtered,
        )

    def close(self) -> None:
        """Frees the rules' engine and the registry's connections."""
        self._opened.close()

    def _columns(self, tombstones: Tombstones, broken: dict[int, Sequence[Broken]]) -> tuple[Places, pa.RecordBatch]:
        """What the rules need of those tombstones that have all of it, and which ones these are."""
        picked = self._picked
        places = np.arange(len(tombstones.keys))
        read = pa.record_batch({})
        if picked.fields:
            decoded = self._decoder.decode(tombstones.keys)
            broken |= {place: [Broken("", RULE, what)] for place, what in decoded.bad.items()}
            places, read = np.delete(places, list(decoded.bad)), flatten(decoded.rows)
        alone = len(picked.fields) == 1
        told = {name: _field(read, name, old, len(places), alone=alone) for name, old in picked.fields.items()}
        whole = _present(told, places, "the record's key does not tell {}", broken)
        told |= {name: tombstones.known[old].take(pa.array(places)) for name, old in picked.known.items()}
        rows = pa.record_batch(list(told.values()), names=list(told))
        return places[whole], rows.filter(pa.array(whole))

    @cached_property
    def _picked(self) -> KeyRules:
        return key_rules(self._pipeline)

    @cached_property
    def _rules(self) -> Rules:
        return self._opened.enter_context(closing(Rules(self._picked.transform)))

    @cached_property
    def _decoder(self) -> Decoder:
        source = self._pipeline.source
        assert isinstance(source, StreamSource)  # noqa: S101  (no other source has tombstones)
        return self._opened.enter_context(closing(key_decoder_of(source)))


def _field(keys: pa.RecordBatch, name: str, old: str, count: int, *, alone: bool) -> pa.Array:
    """A column of what keys tell: as it is called in values, as it is called after `map`, or the key itself."""
    there = dict(zip(keys.schema.names, keys.columns, strict=True))
    there = {each.lower(): column for each, column in there.items()} | there
    wanted = [old, old.replace(".", "_"), name, *([ITSELF] if alone else ())]
    named = [there.get(each, there.get(each.lower())) for each in wanted]
    found = [column for column in named if column is not None and not pa.types.is_null(column.type)]
    same = [column for column in found if column.type == found[0].type]
    return reduce(pc.coalesce, same) if same else pa.nulls(count)


def _present(
    rows: Mapping[str, pa.Array], places: Places, what: str, broken: dict[int, Sequence[Broken]]
) -> NDArray[np.bool_]:
    """Which rows have all of their values; what the others lack is added to `broken`."""
    whole = np.ones(len(places), bool)
    for name, column in rows.items():
        lacking = column.is_null().to_numpy(zero_copy_only=False)
        for place in places[lacking & whole]:
            broken[int(place)] = [Broken(name, RULE, what.format(name))]
        whole &= ~lacking
    return whole

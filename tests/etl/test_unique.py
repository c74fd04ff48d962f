from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.unique import Seen, UniqueColumn, Values, duplicates

PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 2)), max_size=30)


def values(pairs: list[tuple[int, int]]) -> Values:
    return Values(np.array([key for key, _ in pairs], np.int64), np.array([each for _, each in pairs], np.uint64))


@pytest.mark.parametrize("run", [1, 5, 1000])
def test_what_was_seen_is_found_again_in_memory_and_on_disk(run: int) -> None:
    @given(st.lists(PAIRS, max_size=6))
    def check(batches: list[list[tuple[int, int]]]) -> None:
        known: set[tuple[int, int]] = set()
        with closing(Seen(run)) as seen:
            for batch in batches:
                pairs = sorted(set(batch))
                assert seen.find(values(pairs)).tolist() == [pair in known for pair in pairs]
                seen.add(values([pair for pair in pairs if pair not in known]))
                known |= set(pairs)

    check()


def test_values_that_share_a_key_are_told_apart_by_their_hash() -> None:
    with closing(Seen()) as seen:
        seen.add(values([(7, 1), (7, 2)]))
        assert seen.find(values([(7, 0), (7, 1), (7, 2), (7, 3)])).tolist() == [False, True, True, False]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=30), st.integers(1, 30))
def test_a_row_takes_its_values_only_if_it_breaks_no_rule(rows: list[tuple[int, int, bool]], size: int) -> None:
    taken: list[set[int]] = [set(), set()]
    wanted = []
    for *pair, broken in rows:
        found = [value in others for value, others in zip(pair, taken, strict=True)]
        wanted.append(found)
        if not broken and not any(found):
            for value, others in zip(pair, taken, strict=True):
                others.add(value)
    with closing(Seen(4)) as left, closing(Seen(4)) as right:
        given_ = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            columns = [
                UniqueColumn(seen, values([(row[place], 0) for row in part]), np.ones(len(part), np.bool_))
                for place, seen in enumerate([left, right])
            ]
            masks = duplicates(columns, np.array([row[2] for row in part], np.bool_))
            given_ += [[bool(mask[index]) for mask in masks] for index in range(len(part))]
    assert given_ == wanted

"""`mask`, `hash` and `redact`: what becomes of personal data."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import PivotalError, RuleError
from etl.expressions import ExpressionError, parse
from etl.lineage import column_lineage
from etl.loader import check
from etl.pipeline import Transform
from etl.rules import Rules
from etl.session import Session
from etl.stream import Batch, Transformed
from settings import get_settings

KEY = "correct horse battery staple, and more"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """The key of `hash`."""
    return use_key(monkeypatch, KEY)


def use_key(monkeypatch: pytest.MonkeyPatch, value: str) -> str:
    monkeypatch.setenv("PIVOTAL_HASH_KEY", value)
    get_settings.cache_clear()
    return value


def apply(transform: Mapping[str, Any], rows: Mapping[str, Any]) -> Transformed:
    with closing(Rules(Transform.model_validate(transform))) as rules:
        return rules.apply(Batch(pa.record_batch(dict(rows)), lambda index: {"record": index}))


def derived(expression: str, values: Sequence[Any]) -> list[Any]:
    done = apply({"derive": {"x": expression}}, {"a": values})
    assert not done.bad
    return done.good["x"].to_pylist()  # type: ignore[no-any-return]


def hashed(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), "sha256").hexdigest()


def test_mask_shows_the_end_of_a_long_value_only() -> None:
    values = ["4242424242424242", "12345678", "1234567", "ab", "", None, "ÄÖÜäöüßé"]
    assert derived("mask(a)", values) == ["*" * 12 + "4242", "****5678", "*" * 7, "**", "", None, "****öüßé"]
    assert derived("mask(a)", [1234567890, 5]) == ["******7890", "*"]


def test_redact_leaves_only_whether_there_was_a_value() -> None:
    assert derived("redact(a)", ["x", "", None]) == ["[redacted]", "[redacted]", None]


def test_hash_is_hmac_sha256_under_the_key(key: str) -> None:
    assert derived("hash(a)", ["ada", "", None, "é"]) == [hashed(key, "ada"), hashed(key, ""), None, hashed(key, "é")]
    assert derived("hash(a)", [Decimal("1.50")]) == [hashed(key, "1.50")]
    assert derived("hash(lower(trim(a)))", [" Ada"]) == [hashed(key, "ada")]


KEYS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=32, max_size=90)


@given(KEYS, st.lists(st.text(max_size=200), max_size=20))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hashes_of_any_text_under_any_key_are_those_of_python(
    monkeypatch: pytest.MonkeyPatch, key: str, texts: list[str]
) -> None:
    use_key(monkeypatch, key)
    assert derived("hash(a)", pa.array(texts, pa.string())) == [hashed(key, text) for text in texts]


def test_unique_beside_hash_still_works(key: str) -> None:
    transform = {"validate": {"a": {"unique": True}}, "derive": {"a": "hash(a)"}}
    done = apply(transform, {"a": ["x", "y", "x"]})
    assert done.good["a"].to_pylist() == [hashed(key, "x"), hashed(key, "y")]
    assert [bad.row["a"] for bad in done.bad] == ["x"]  # the quarantine has rows as they were read


@pytest.mark.parametrize(("given", "message"), [("", "is not set"), ("short-secret", "has fewer than 32 characters")])
@pytest.mark.parametrize("transform", [{"derive": {"x": "upper(hash(a))"}}, {"filter": ["HASH(a) <> ''"]}])
def test_without_a_key_nothing_is_hashed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, message: str, transform: dict[str, Any]
) -> None:
    if given:
        use_key(monkeypatch, given)
    with pytest.raises(RuleError, match=f"hash needs a key, but PIVOTAL_HASH_KEY {message}") as caught:
        apply(transform, {"a": ["x"]})
    file = tmp_path / "people.yaml"
    file.write_text(
        "description: People\nsource: {type: file, path: none.csv}\n"
        f"transform: {transform}\ndestination: {{type: file, path: lake, write: append}}\n"
    )
    (problem,) = check([file])
    assert message in problem.message
    assert "short-secret" not in f"{caught.value}{problem}"


def test_the_key_shows_in_no_error_and_no_expression_reads_it(key: str) -> None:
    for expression in ("__hash_inner()", "getvariable('hash_inner')"):
        with pytest.raises(ExpressionError, match=r"there is no function|which depends on more than"):
            parse(expression)
    for expression in ("hash(a, a)", "hash()", "hash(DISTINCT a)", "sqrt(hash(a))"):
        with pytest.raises(PivotalError) as caught:
            apply({"derive": {"x": expression}}, {"a": ["x"]})
        assert key[:8] not in f"{caught.value} {caught.value!r}"
    (bad,) = apply({"derive": {"x": "CAST(hash(a) AS INTEGER)"}}, {"a": ["x"]}).bad
    assert [each.message for each in bad.broken] == ["CAST(hash(a) AS INTEGER) cannot be computed with a = 'x'"]
    assert key[:8] not in repr(get_settings())


def test_what_the_functions_are_called_is_what_runs() -> None:
    assert parse("Mask(a) || redact(b)").functions == {"mask", "||", "redact"}


@pytest.fixture
def session() -> Iterator[Session]:
    with closing(Session()) as opened:
        yield opened


def test_the_engines_own_hash_is_another_one(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    (theirs,) = session.run("SELECT hash('a')")
    use_key(monkeypatch, KEY)
    session.use_hash_key()
    assert session.run("SELECT system.main.hash('a'), hash('a')") == [(*theirs, hashed(KEY, "a"))]


# --- lineage --------------------------------------------------------------------------------------------------


def test_columns_are_traced_through_every_rule() -> None:
    transform = Transform.model_validate(
        {
            "map": {"Mail": "email", "address": "place", "who.name": "name", "*": "*"},
            "convert": {"day": {"type": "date", "format": "%d.%m.%Y"}},
            "validate": {"email": {"type": "string", "references": {"table": "people", "column": "email"}}},
            "expect": ["day > '2000-01-01'"],
            "derive": {"email": "hash(lower(EMAIL))", "shown": "mask(email) || name || kept", "none": "redact('x')"},
            "filter": ["kept IS NOT NULL"],
        }
    )
    result = ["email", "place_city", "place_zip_code", "name", "day", "kept", "shown", "none"]
    assert column_lineage(transform, result) == {
        "email": ["Mail"],
        "place_city": ["address"],
        "place_zip_code": ["address"],
        "name": ["who.name"],
        "day": ["day"],
        "kept": ["kept"],
        "shown": ["Mail", "who.name", "kept"],
        "none": [],
    }

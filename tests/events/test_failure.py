from __future__ import annotations

import pytest

from errors import PivotalError
from events.failure import last_line, told, without_secrets
from settings import get_settings


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pass@host/db is away", "postgresql://***host/db is away"),
        ("GET https://host/?page=2&access_token=abc&x=1", "GET https://host/?page=2&access_token=***&x=1"),
        ("{'api_key': 'abc', 'n': 1}", "{'api_key': '***', 'n': 1}"),
        ("password=abc host=db", "password=*** host=db"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("sk_live_abc and whsec_abc= and SG.abc.def and AKIAABC", "*** and *** and *** and ***"),
        ("KeyError: 'evt_1'", "KeyError: 'evt_1'"),
        ("dedupe_key 'a', 3 of 4 tokens", "dedupe_key 'a', 3 of 4 tokens"),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_the_settings_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_TWILIO_WEBHOOK_TOKENS", "first-one, second-one")
    get_settings.cache_clear()

    assert without_secrets("first-one or second-one") == "*** or ***"


def test_an_error_is_told_with_its_traceback_and_comes_to_a_line_without_its_hint() -> None:
    with pytest.raises(PivotalError) as raised:
        raise PivotalError("no such mailbox", hint="make it")
    text = told(raised.value)

    assert text.startswith("Traceback (most recent call last):")
    assert "test_failure.py" in text
    assert last_line(text) == "errors.PivotalError: no such mailbox"


@pytest.mark.timeout(30)  # a regular expression gone wild takes minutes
@pytest.mark.parametrize("word", ["://", "token_"])
def test_an_error_of_any_size_is_told_in_little_space(word: str) -> None:
    assert len(told(ValueError(word * 300_000))) <= 20_000

from __future__ import annotations

import logging
import sys

import pytest

from tests.leaks import secrets_in


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("sk_live_4711", "a Stripe key"),
        ("whsec_abc=", "a webhook's secret"),
        ("SG.abcd.efgh", "a SendGrid key"),
        ("4242 4242 4242 4242", "a card's number"),
        ("Authorization: Bearer eyJhbGciOi", "credentials"),
        ("postgresql://someone:open-sesame@db/shop", "the password of a URL"),
    ],
)
def test_a_secret_is_found_in_a_message_a_field_and_a_traceback(text: str, what: str) -> None:
    try:
        int(text)
    except ValueError:
        traceback = sys.exc_info()

    told = logging.makeLogRecord({"name": "etl", "msg": "it says %s", "args": (text,)})
    kept = logging.makeLogRecord({"name": "etl", "msg": "", "url": text})
    raised = logging.makeLogRecord({"name": "etl", "msg": "", "exc_info": traceback})

    assert [secrets_in(record) for record in (told, kept, raised)] == [[f"{what} from etl"]] * 3


def test_a_url_without_a_password_is_no_secret() -> None:
    assert not secrets_in(logging.makeLogRecord({"msg": "read from postgresql://someone@db/shop"}))

"""Whoever sends may be killed at any moment: a rerun sends what was not sent, and nothing twice."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from pydantic import SecretStr

from events.log import open_log
from integrations.many import Many
from integrations.twilio import Result, Sms, Twilio, TwilioConfig
from sandbox.serve import Running

MESSAGES = 60
PROGRAM = "import sys; from tests.integrations.test_twilio_crash import send; send(*sys.argv[1:])"


def send(base: str, log_url: str) -> Many[Result]:
    many = [Sms(to=f"+1415555{number:04}", sender="+15005550006", body="Hello") for number in range(MESSAGES)]
    config = TwilioConfig(account_sid="AC" + "0" * 32, secret=SecretStr("x"), api_base=base, settle=0.5)
    with closing(open_log(log_url)) as log, Twilio(config, log) as twilio:
        return twilio.messages.send_many(many, operation_id="spring", at_once=4)


def test_a_killed_process_has_sent_nothing_that_the_next_one_sends_again(served: Running, tmp_path: Path) -> None:
    arguments = [served.twilio_base, f"sqlite:///{tmp_path / 'events.db'}"]
    for goal in (5, 30):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments])
        while len(served.sandbox.twilio.messages) <= goal and process.poll() is None:
            time.sleep(0.001)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.wait()
    done = send(*arguments)
    assert (done.total, done.failed) == (MESSAGES, 0)
    held = served.sandbox.twilio.messages
    assert Counter(told["to"] for told in held) == {f"+1415555{number:04}": 1 for number in range(MESSAGES)}
    assert {result.sent.message.sid for result in done.results if result.sent} == {told["sid"] for told in held}
    assert {result.sent.known for result in done.results if result.sent} >= {"before", "answered"}

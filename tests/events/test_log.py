from __future__ import annotations

from pathlib import Path

import pytest

from errors import EventLogError
from events.log import open_log
from tests.events.samples import event


def test_a_relative_url_starts_from_the_projects_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_ROOT", str(tmp_path))

    log = open_log("sqlite:///data/deep/events.db")
    log.publish([event()])
    log.close()

    assert (tmp_path / "data" / "deep" / "events.db").is_file()


def test_an_absolute_url_does_not(tmp_path: Path) -> None:
    open_log(f"sqlite:///{tmp_path}/events.db").close()

    assert (tmp_path / "events.db").is_file()


@pytest.mark.parametrize(
    "url", ["mysql://me:secret@host/db", "sqlite://", "sqlite:///", "sqlite://events.db", "events.db", ""]
)
def test_a_url_of_something_else_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(EventLogError, match="PIVOTAL_EVENTS_URL") as raised:
        open_log(url)

    assert "secret" not in str(raised.value)
    assert not raised.value.retryable

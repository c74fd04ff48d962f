"""The pipeline that the page on Twilio shows, run against the sandbox."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from etl.loader import load_pipelines
from etl.run import run_pipeline
from sandbox.serve import Running
from sandbox.twilio import ACCOUNT
from settings import get_settings

(SHOWN,) = re.findall(
    r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs/integrations/twilio.md").read_text(), re.DOTALL
)


def test_messages_become_rows_with_their_prices_and_times(
    served: Running, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIVOTAL_TWILIO_API_BASE", served.twilio_base)
    monkeypatch.setenv("PIVOTAL_TWILIO_ACCOUNT_SID", ACCOUNT)
    monkeypatch.setenv("PIVOTAL_TWILIO_SECRET", "of the tests")
    monkeypatch.setenv("PIVOTAL_WAREHOUSE_URL", f"duckdb:///{project / 'house.duckdb'}")
    get_settings.cache_clear()
    with served.sandbox.clock.at(1_750_000_000 + 3600):
        served.sandbox.twilio.seed(1)
    (project / "pipelines").mkdir()
    (project / "pipelines" / "shown.yaml").write_text(SHOWN)
    (shown,) = load_pipelines(project / "pipelines")
    assert run_pipeline(shown).inserted == 1
    assert run_pipeline(shown).inserted == 0
    with duckdb.connect(str(project / "house.duckdb"), read_only=True) as house:
        (row,) = house.execute("SELECT status, price, epoch(sent_at) FROM twilio_messages").fetchall()
    assert row == ("delivered", Decimal("-0.00790"), datetime.fromtimestamp(1_750_000_000, UTC).timestamp())

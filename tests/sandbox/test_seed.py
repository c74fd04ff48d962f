"""The data to try things on: the same every time, with just the dirt that it says."""

from __future__ import annotations

import csv
import gzip
import io
import re
import sqlite3
from collections import Counter
from contextlib import closing
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.app import Sandbox
from sandbox.seed import HISTORY, write_payments, write_shop
from sandbox.serve import running

SENDGRID = {"Authorization": "Bearer SG.of_the_tests"}


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def is_amount(text: str) -> bool:
    try:
        return Decimal(text) >= 0
    except InvalidOperation:
        return False


@pytest.mark.parametrize("write", [write_shop, write_payments])
def test_a_file_that_is_written_again_is_the_same_to_the_byte_and_the_second(tmp_path: Path, write: Any) -> None:
    first, second = tmp_path / "a" / "one", tmp_path / "b" / "two"
    assert write(first) == write(second)
    write(first)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mtime == second.stat().st_mtime == HISTORY[1].timestamp()


def test_the_shop_has_as_many_wrong_orders_as_it_says(tmp_path: Path) -> None:
    kinds = write_shop(tmp_path / "shop.db")
    orders = rows(tmp_path / "shop.db", "SELECT id, customer_email, amount, status FROM orders")
    assert len(orders) == sum(kinds.values()) == 5_000 + kinds["duplicate"]
    assert len(orders) - len({id_ for id_, *_ in orders}) == kinds["duplicate"] > 0
    assert sum(amount.startswith("-") for _, _, amount, _ in orders) == kinds["negative"] > 0
    malformed = [email for _, email, _, _ in orders if not re.fullmatch(r"[^@ ]+@[^@ ]+\.[^@ ]+", email)]
    assert len(malformed) == kinds["malformed_email"] > 0
    assert sum(status == "test" for *_, status in orders) == kinds["test"] > 0
    bad = [amount for _, _, amount, _ in orders if not is_amount(amount)]
    assert len(bad) == kinds["negative"] + kinds["not_a_number"] > kinds["negative"]


def test_money_is_exact_text_and_postcodes_keep_their_zeros(tmp_path: Path) -> None:
    write_shop(tmp_path / "shop.db")
    kinds = rows(tmp_path / "shop.db", "SELECT DISTINCT typeof(amount) FROM orders")
    assert kinds == [("text",)]
    assert rows(tmp_path / "shop.db", "SELECT count(*) FROM customers WHERE postcode LIKE '0%'")[0][0] > 0


def test_the_payment_file_has_as_many_wrong_lines_as_it_says(tmp_path: Path) -> None:
    kinds = write_payments(tmp_path / "payments-1.csv.gz")
    text = gzip.decompress((tmp_path / "payments-1.csv.gz").read_bytes()).decode()
    header, *lines = csv.reader(io.StringIO(text))
    found: Counter[str] = Counter()
    for line in lines:
        if len(line) != len(header):
            found["ragged"] += 1
        elif not is_amount(line[3]) or "e" in line[3]:
            found["bad_number"] += 1
        elif not re.fullmatch(r"2\d{3}-\d\d-\d\d", line[5]) or line[5] == "2026-02-30":
            found["bad_date"] += 1
        elif not re.fullmatch(r"\d{10}", line[2]):
            found["bad_account"] += 1
        else:
            found["good"] += 1
    assert found == kinds
    assert sum(kinds.values()) == 2_000
    assert set(kinds) == {"good", "ragged", "bad_number", "bad_date", "bad_account"}
    whole = [line for line in lines if len(line) == len(header)]
    assert any(line[2].startswith("000") for line in whole)
    assert any("\n" in line[6] for line in whole)
    assert any("東京" in line[6] for line in whole)


def test_stripes_history_is_the_same_for_the_same_seed_and_made_no_events() -> None:
    def history() -> list[Any]:
        sandbox = Sandbox(id_seed="demo")
        sandbox.seed(230)
        kinds = ("customer", "price", "invoice", "event")
        return [sandbox.stripe.account.page(kind, {"limit": 100}) for kind in kinds]

    customers, prices, invoices, events = history()
    assert [customers, prices, invoices, events] == history()
    assert (customers["has_more"], len(prices["data"]), invoices["has_more"]) == (True, 4, True)
    assert events["data"] == []
    start, end = (moment.timestamp() for moment in HISTORY)
    assert all(start <= each["created"] < end for each in (*customers["data"], *invoices["data"]))


def test_sendgrids_history_is_the_same_every_time_and_told_nobody() -> None:
    def history() -> list[Any]:
        sandbox = Sandbox(id_seed="demo")
        sandbox.seed(230)
        with running(sandbox) as served, httpx.Client(base_url=served.sendgrid_base, headers=SENDGRID) as http:
            templates = http.get("/v3/templates?generations=dynamic&page_size=9").json()["result"]
            people = http.post("/v3/marketing/contacts/search", json={"query": "email LIKE '%'"}).json()
            lists = [http.get(f"/v3/suppression/{name}").json() for name in ("bounces", "unsubscribes")]
        return [templates, people["contact_count"], people["result"], *lists, sandbox.webhooks.deliveries]

    templates, count, people, bounces, unsubscribed, deliveries = history()
    assert [templates, count, people, bounces, unsubscribed, deliveries] == history()
    assert [(each["name"], each["versions"][0]["active"]) for each in templates] == [("Welcome", 1), ("Invoice", 1)]
    assert (count, len(people), deliveries) == (230, 50, [])
    assert all(0 < len(each) < 30 for each in (bounces, unsubscribed))
    assert {"created", "email", "reason", "status"} == bounces[0].keys()

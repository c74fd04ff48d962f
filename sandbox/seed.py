"""Data to try things on, the same every time: Stripe's and SendGrid's; a shop's database and payment file, with dirt.

The dirt is counted: `write_shop` and `write_payments` say how many rows of which kind they wrote.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from sandbox.billing import Account
from sandbox.objects import Record
from sandbox.sendgrid import SendGridService
from sandbox.world import Clock

HISTORY = (datetime(2025, 11, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
"""Everything happened between these two."""

_FIRST = (
    "Ada", "Bjørn", "Chloé", "Dario", "Edith", "Fatima", "Grace", "Hiroshi", "Ines", "Jürgen", "Kofi", "Lucía", "Mei",
    "Noah", "Olga", "Priya", "Quentin", "Rosa", "Søren", "Tomás", "Uma", "Viktor", "Wanda", "Zoë",
)  # fmt: skip
_LAST = (
    "Almeida", "Baker", "Costa", "Dąbrowski", "Eriksen", "Fischer", "García", "Hopper", "Ivanov", "Jensen", "Kaya",
    "Lovelace", "Müller", "Nakamura", "O'Brien", "Petrov", "Quist", "Rossi", "Silva", "Tanaka", "Ueda", "Weiß",
)  # fmt: skip
_THINGS = ("Lamp", "Desk", "Chair", "Shelf", "Rug", "Mirror", "Clock", "Vase")
_PLANS = (
    ("Starter", 900, "month"),
    ("Team", 2_900, "month"),
    ("Business", 9_900, "month"),
    ("Team, yearly", 29_000, "year"),
)
_SHOP = """
CREATE TABLE customers (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT, postcode TEXT NOT NULL, created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE TABLE products (
    id INTEGER PRIMARY KEY, sku TEXT NOT NULL, name TEXT NOT NULL, price NUMERIC(10, 2) NOT NULL,
    updated_at TEXT NOT NULL
);
-- As old shops are: no primary key, and money as text, since SQLite has no exact decimals.
CREATE TABLE orders (
    id INTEGER NOT NULL, customer_id INTEGER NOT NULL, customer_email TEXT, product_id INTEGER NOT NULL,
    quantity INTEGER NOT NULL, amount TEXT NOT NULL, currency TEXT NOT NULL, status TEXT NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL
);
CREATE INDEX orders_updated_at ON orders (updated_at);
"""
_UNMAILED: Mapping[str, Mapping[str, str]] = {
    "bounces": {"reason": "550 5.1.1 The email account that you tried to reach does not exist", "status": "5.1.1"},
    "unsubscribes": {},
    "spam_reports": {"ip": "198.51.100.7"},
}

Order = dict[str, object]


def seed_stripe(account: Account, clock: Clock, customers: int) -> None:
    """Gives an account customers who came, subscribed, paid and (some) left, within `HISTORY`.

    Args:
        account: An empty account.
        clock: The account's.
        customers: How many.
    """
    dice = random.Random("stripe")  # noqa: S311
    start, end = (int(each.timestamp()) for each in HISTORY)
    with account.unobserved():
        with clock.at(start):
            prices = [_price(account, *plan) for plan in _PLANS]
        for number in range(customers):
            with clock.at(start + (end - start) * number // customers):
                customer = account.create_customer(_person(dice, number))
                subscribed = dice.random() < 0.6
                if subscribed:
                    subscription = account.create_subscription(_wish(dice, customer, prices))
            if subscribed:
                _live(account, clock, subscription["id"], dice)


def seed_sendgrid(service: SendGridService, clock: Clock, contacts: int) -> None:
    """Gives an account two templates, contacts, and some among them who bounced, unsubscribed or complained.

    Args:
        service: SendGrid, with an empty account.
        clock: Its clock.
        contacts: How many.
    """
    dice = random.Random("sendgrid")  # noqa: S311
    start, end = (int(each.timestamp()) for each in HISTORY)
    with clock.at(start):
        for name in ("Welcome", "Invoice"):
            version = {"name": "first", "subject": f"{name}, {{{{name}}}}", "html_content": "<p>Hello {{name}}</p>"}
            service.templates.add_version(service.templates.add(name, "dynamic"), version)
    for number in range(contacts):
        with clock.at(start + (end - start) * number // contacts):
            first, last = dice.choice(_FIRST), dice.choice(_LAST)
            email = _email(first, number)
            service.contacts.put({"email": email, "first_name": first, "last_name": last, "list_ids": []})
            if (why := dice.choices(("mailed", *_UNMAILED), (90, 5, 4, 1))[0]) != "mailed":
                service.suppressions.put(why, email, **_UNMAILED[why])


def write_shop(path: Path) -> Mapping[str, int]:
    """Writes the shop's SQLite database: 400 customers, 40 products, 5,000 orders and some more that are wrong.

    Args:
        path: The database file; replaced if it is there.

    Returns:
        How many orders are of which kind: `good`, `test` (to be filtered), `negative`, `malformed_email`,
        `not_a_number`, `duplicate`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    dice = random.Random("shop")  # noqa: S311
    kinds: Counter[str] = Counter()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_SHOP)
        connection.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?)", _customers(dice))
        connection.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?)", _products(dice))
        for kind, order in _orders(dice):
            kinds[kind] += 1
            marks = ", ".join(f":{column}" for column in order)
            connection.execute(f"INSERT INTO orders VALUES ({marks})", order)
        connection.commit()
    _never_touched(path)
    return kinds


def write_payments(path: Path) -> Mapping[str, int]:
    """Writes the bank's payment file: a gzip CSV of 2,000 lines, some of which are wrong.

    Args:
        path: The file (`payments-....csv.gz`); replaced if it is there.

    Returns:
        How many lines are of which kind: `good`, `ragged`, `bad_number`, `bad_date`, `bad_account`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dice = random.Random("payments")  # noqa: S311
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["payment_id", "order_id", "account", "amount", "currency", "paid_on", "note"])
    kinds: Counter[str] = Counter()
    for kind, line in _payments(dice):
        kinds[kind] += 1
        writer.writerow(line)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    _never_touched(path)
    return kinds


# --- Stripe -----------------------------------------------------------------------------------------------------


def _price(account: Account, name: str, amount: int, interval: str) -> str:
    product = account.create_product({"name": name})
    recurring = {"interval": interval}
    price = account.create_price(
        {"product": product["id"], "currency": "usd", "unit_amount": amount, "recurring": recurring}
    )
    return str(price["id"])


def _person(dice: random.Random, number: int) -> Record:
    name = f"{dice.choice(_FIRST)} {dice.choice(_LAST)}"
    card = "pm_card_visa" if dice.random() < 0.8 else "pm_card_mastercard"
    return {
        "name": name,
        "email": _email(name, number),
        "payment_method": card,
        "invoice_settings": {"default_payment_method": card},
        "metadata": {"source": dice.choice(["web", "sales", "partner"])},
    }


def _wish(dice: random.Random, customer: Record, prices: list[str]) -> Record:
    item = {"price": dice.choice(prices), "quantity": dice.randint(1, 5)}
    trial = {"trial_period_days": 14} if dice.random() < 0.2 else {}
    return {"customer": customer["id"], "items": [item], **trial}


def _live(account: Account, clock: Clock, id_: str, dice: random.Random) -> None:
    while (due := _next_bill(account, id_)) < HISTORY[1].timestamp():
        with clock.at(due):
            if dice.random() < 0.05:
                account.cancel_subscription(id_, {})
                return
            account.renew_subscription(id_)


def _next_bill(account: Account, id_: str) -> int:
    item = account.get("subscription", id_)["items"]["data"][0]
    return int(item["current_period_end"])


# --- the shop ---------------------------------------------------------------------------------------------------


def _customers(dice: random.Random) -> Iterator[tuple[object, ...]]:
    for id_ in range(1, 401):
        name, created = f"{dice.choice(_FIRST)} {dice.choice(_LAST)}", _moment(dice)
        yield id_, name, _email(name, id_), f"{dice.randint(0, 99_999):05}", _iso(created), _iso(created)


def _products(dice: random.Random) -> Iterator[tuple[object, ...]]:
    for id_ in range(1, 41):
        price = str(Decimal(dice.randint(500, 50_000)) / 100)
        yield id_, f"{id_:06}", f"{dice.choice(_THINGS)} no. {id_}", price, _iso(_moment(dice))


def _orders(dice: random.Random) -> Iterator[tuple[str, Order]]:
    moments = sorted(_moment(dice) for _ in range(5_000))
    for id_, created in enumerate(moments, 1):
        order = _order(dice, id_, created)
        kind = dice.choices(("good", "test", "negative", "malformed_email", "not_a_number"), (9_700, 200, 40, 40, 20))[
            0
        ]
        yield kind, order | _wrong(kind, dice)
        if kind == "good" and dice.random() < 0.001:
            yield "duplicate", order


def _order(dice: random.Random, id_: int, created: datetime) -> Order:
    customer = dice.randint(1, 400)
    return {
        "id": id_,
        "customer_id": customer,
        "customer_email": f"customer.{customer}@example.com",
        "product_id": dice.randint(1, 40),
        "quantity": dice.randint(1, 4),
        "amount": f"{Decimal(dice.randint(500, 200_000)) / 100:.2f}",
        "currency": dice.choice(["USD", "USD", "EUR"]),
        "status": dice.choice(["paid", "paid", "paid", "open", "void"]),
        "created_at": _iso(created),
        "updated_at": _iso(created + timedelta(minutes=dice.randint(0, 30))),
    }


def _wrong(kind: str, dice: random.Random) -> Order:
    choices: dict[str, Order] = {
        "good": {},
        "test": {"status": "test"},
        "negative": {"amount": f"-{dice.randint(1, 99)}.50"},
        "malformed_email": {"customer_email": dice.choice(["no-at-sign.example.com", "two@@example.com", "x@nodot"])},
        "not_a_number": {"amount": dice.choice(["12,50", "n/a", "1.2.3"])},
    }
    return choices[kind]


# --- the payments -----------------------------------------------------------------------------------------------


def _payments(dice: random.Random) -> Iterator[tuple[str, list[str]]]:
    for number in range(1, 2_001):
        line = _payment(dice, number)
        kind = dice.choices(("good", "ragged", "bad_number", "bad_date", "bad_account"), (9_800, 50, 50, 50, 50))[0]
        yield kind, _broken(kind, line, dice)


def _payment(dice: random.Random, number: int) -> list[str]:
    notes = ["", "", "rent", 'called "urgent"', "Größe: 20 €, 東京", "two\nlines", "a, b"]
    return [
        f"P{number:06}",
        str(dice.randint(1, 5_000)),
        f"{dice.randint(0, 9_999_999):010}",
        f"{Decimal(dice.randint(100, 500_000)) / 100:.2f}",
        dice.choice(["USD", "EUR"]),
        _moment(dice).date().isoformat(),
        dice.choice(notes),
    ]


def _broken(kind: str, line: list[str], dice: random.Random) -> list[str]:
    if kind == "ragged":
        return dice.choice([line[:4], [*line, "surplus"]])
    place, values = {
        "good": (6, [line[6]]),
        "bad_number": (3, ["12,50", "abc", "1e", "--5"]),
        "bad_date": (5, ["2026-02-30", "31/12/2025", "yesterday"]),
        "bad_account": (2, ["12345", "ABCDEFGHIJ"]),
    }[kind]
    return [*line[:place], dice.choice(values), *line[place + 1 :]]


# --- both -------------------------------------------------------------------------------------------------------


def _moment(dice: random.Random) -> datetime:
    start, end = HISTORY
    return start + timedelta(seconds=dice.randrange(int((end - start).total_seconds())))


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _email(name: str, number: int) -> str:
    return f"{name.split(maxsplit=1)[0].encode('ascii', 'ignore').decode().lower()}.{number}@example.com"


def _never_touched(path: Path) -> None:
    # A file that is written again is the same file: what was loaded of it once is not loaded twice.
    moment = HISTORY[1].timestamp()
    os.utime(path, (moment, moment))

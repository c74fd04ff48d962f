"""`pivotal check`: every mistake has one message with its place, the offending text and a hint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.conftest import Pivotal

GOOD = """\
description: Shop orders
source:
  type: database
  connection: sqlite:///shop.db
  table: orders
transform:
  map: {id: order_id, amt: amount}
  convert:
    amount: decimal(18,2)
  derive:
    with_tax: amount * 1.2
  filter: ["amount > 0"]
destination:
  type: database
  connection: ${PIVOTAL_WAREHOUSE_URL}
  table: orders
  write: merge
  key: [order_id]
schedule: "*/15 * * * *"
"""

Change = tuple[str, str]

MISTAKES: dict[str, tuple[Change, str]] = {
    "unknown key": (
        ("  connection: sqlite", "  conection: sqlite"),
        "4:3: unknown key: 'conection'\n  hint: did you mean `connection`?",
    ),
    "missing key": (
        ("  table: orders\n  write: merge", "  write: merge"),
        "14:3: `table` is missing in `destination`\n  hint: Table, with its schema where it has one: analytics.orders.",
    ),
    "wrong type": (
        ("key: [order_id]", "key: order_id"),
        "18:8: `key` is not a list: 'order_id'\n  hint: write [one, two], or lines that start with `- `",
    ),
    "unknown source type": (
        ("type: database\n  connection: sqlite", "type: databse\n  connection: sqlite"),
        "3:9: unknown source type: 'databse'\n  hint: did you mean `database`?",
    ),
    "unset environment variable": (
        ("sqlite:///shop.db", "${SHOP_DATABASE_URL}"),
        (
            "4:15: an environment variable that is not set: '${SHOP_DATABASE_URL}'\n"
            "  hint: set it in the environment or in .env, or give a default: ${SHOP_DATABASE_URL:-...}"
        ),
    ),
    "bad cron": (
        ('"*/15 * * * *"', '"*/15 * * *"'),
        (
            "19:11: `schedule` is not a cron expression: it has not 5 fields, but 4: '*/15 * * *'\n"
            "  hint: write five fields, minute hour day month weekday: '*/15 * * * *'"
        ),
    ),
    "bad expression": (
        ("amount * 1.2", "amount * count(*)"),
        (
            "11:24: not an expression: it calls count, which looks at other rows: 'amount * count(*)'\n"
            "  hint: an expression makes one value from the columns of its own row"
        ),
    ),
    "bad syntax in an expression": (
        ("amount * 1.2", "amount * )"),
        "11:24: not an expression: syntax error at or near \")\": 'amount * )'",
    ),
    "expression that names a column that does not exist": (
        ('["amount > 0"]', '["amount > 0 AND amuont < 9"]'),
        "12:28: there is no such column: 'amuont'\n  hint: did you mean `amount`?",
    ),
    "merge without key": (
        ("  key: [order_id]\n", ""),
        "17:10: `merge` without `key`: 'merge'\n  hint: add `key: [...]`, the columns that identify a row",
    ),
    "a tab": (
        ("  table: orders\ntransform", "\ttable: orders\ntransform"),
        "5:1: a tab in the indentation: '\\t'\n  hint: indent with spaces",
    ),
    "an empty file": (
        (GOOD, ""),
        "1:1: the file is empty\n  hint: a pipeline has `description`, `source` and `destination`",
    ),
    "a binary file": (
        (GOOD, "PNG\r\n\x1a\n\0\0\0"),
        (
            "2:1: a binary file, not YAML: '\\x1a'\n"
            "  hint: pipelines are YAML text files; move it out of the folder, or give it another suffix"
        ),
    ),
}


def write(project: Path, content: str, name: str = "orders.yaml") -> Path:
    path = project / "pipelines" / name
    path.write_bytes(content.encode())
    return path


def test_a_good_file_passes(project: Path, pivotal: Pivotal) -> None:
    write(project, GOOD)
    answer = pivotal("check")
    assert (answer.code, answer.out, answer.err) == (0, "No mistakes.\n", "")


@pytest.mark.parametrize(("change", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_once_with_its_place_text_and_hint(
    project: Path, pivotal: Pivotal, change: Change, told: str
) -> None:
    assert change[0] in GOOD
    write(project, GOOD.replace(*change))
    answer = pivotal("check")
    assert answer.out == f"pipelines/orders.yaml:{told}\n1 mistake in 1 file\n"
    assert (answer.code, answer.err) == (1, "")


def test_two_pipelines_with_one_name_are_told_with_both_files(project: Path, pivotal: Pivotal) -> None:
    write(project, GOOD)
    write(project, "name: orders\n" + GOOD, "shop.yaml")
    answer = pivotal("check")
    assert answer.code == 1
    assert answer.out.startswith(
        "pipelines/shop.yaml:1:7: a pipeline of this name is in pipelines/orders.yaml, too: 'orders'\n"
        "  hint: give one of them another `name`\n"
    )


def test_all_mistakes_of_all_files_are_told_in_one_go(project: Path, pivotal: Pivotal) -> None:
    write(project, GOOD.replace("conn", "con").replace("*/15", "99").replace("amount > 0", "amuont > 0"), "one.yaml")
    write(project, "a: [", "two.yaml")
    answer = pivotal("check", "--json")
    places = [(each["file"], each["line"]) for each in answer.json["problems"]]
    assert places == [("pipelines/one.yaml", line) for line in (4, 12, 15, 19)] + [("pipelines/two.yaml", 2)]
    assert answer.code == 1


def test_the_real_command_shows_no_traceback(project: Path) -> None:
    write(project, GOOD.replace("type: database\n  connection: ${", "type: databse\n  connection: ${"))
    command = [str(Path(sys.executable).parent / "pivotal"), "check", "pipelines/orders.yaml"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout.startswith("pipelines/orders.yaml:14:9: unknown destination type: 'databse'\n  hint: did you")
    assert done.stderr == ""


def test_files_and_folders_can_be_named(project: Path, pivotal: Pivotal) -> None:
    write(project, GOOD, "good.yaml")
    bad = write(project, "x: 1", "bad.yaml")
    assert pivotal("check", "pipelines/good.yaml").code == 0
    assert pivotal("check", str(bad)).out.startswith("pipelines/bad.yaml:1:1: ")
    assert pivotal("check", "pipelines").code == 1


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("nowhere", "nowhere:1:1: there is no such folder"),
        ("nowhere.yaml", "nowhere.yaml:1:1: cannot be read: no such file or directory"),
        ("empty", "empty:1:1: there is no pipeline in this folder"),
    ],
)
def test_a_path_without_a_pipeline_is_told(project: Path, pivotal: Pivotal, argument: str, says: str) -> None:
    (project / "empty").mkdir()
    answer = pivotal("check", argument)
    assert answer.code == 1
    assert answer.out.startswith(says)


def test_secrets_in_a_file_are_not_shown(project: Path, pivotal: Pivotal) -> None:
    api = "type: api\n  url: x\n  auth: {type: bearer, token: [hunter2]}\n  headers: {X: {a: hunter2}}"
    api += '\n  password: "hunter2'
    source = "type: database\n  connection: sqlite:///shop.db\n  table: orders"
    write(project, GOOD.replace(source, api + '"'))
    write(project, GOOD.replace(source, api), "broken.yaml")
    write(project, GOOD.replace("sqlite:///shop.db", "[postgresql://user:hunter2@db/shop]"), "url.yaml")
    answer = pivotal("check")
    assert answer.code == 1
    assert "hunter2" not in answer.out + answer.err
    assert "url.yaml:4:15: `connection` is not a text" in answer.out


yaml_like = st.text(alphabet="abno:- \n\t[]{},'\"#&*!|>%@`${}\\0.1é\x85\u2028\ufeff", max_size=200)
known_words = st.sampled_from(
    ["source", "type", "database", "transform", "validate", "derive", "${X}", "x", "null", "1"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | known_words,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(known_words | st.text(max_size=5), below, max_size=5),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(content=st.binary(max_size=300) | yaml_like.map(str.encode))
def test_no_bytes_do_worse_than_a_message(project: Path, pivotal: Pivotal, content: bytes) -> None:
    (project / "pipelines/any.yaml").write_bytes(content)
    answer = pivotal("check")
    assert answer.code == 1
    assert answer.err == ""
    assert "pipelines/any.yaml:" in answer.out


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(section=st.sampled_from(["source", "transform", "destination", "schedule", "owners", "name"]), value=values)
def test_no_values_do_worse_than_a_message(project: Path, pivotal: Pivotal, section: str, value: object) -> None:
    import yaml

    write(project, yaml.safe_dump(yaml.safe_load(GOOD) | {section: value}, allow_unicode=True))
    answer = pivotal("check")
    assert answer.code in {0, 1}
    assert answer.err == ""
    assert "Input should" not in answer.out

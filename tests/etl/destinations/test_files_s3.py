"""What a bucket asks for besides the contract: one request from the old content to the new, whatever happens."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import boto3
import httpx
import pyarrow.parquet as pq
import pytest
from botocore.client import BaseClient

from errors import DestinationError, IntegrationError, PivotalError
from etl.destinations import open_destination
from etl.partitions import partition_of
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from etl.stream import Destination
from integrations.s3 import S3, configured
from settings import get_settings
from tests.etl.destinations.backends import bad, load, rows
from tests.integrations.web import Asked, Reply, Web, web

__all__ = ["web"]

_REFUSED = b"<Error><Code>%s</Code><Message>%s</Message></Error>"


@pytest.fixture
def client(s3_endpoint: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the server, which has one bucket, `lake`."""
    del project
    _point_to(s3_endpoint, monkeypatch)
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="lake")
    return client


def _point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_S3_ENDPOINT_URL", endpoint)
    # To make one takes a while; and tests of one cause trouble that would leave the next ones out.
    monkeypatch.setattr("etl.destinations.bucket.open_s3", cache(_open))
    get_settings.cache_clear()


def _open() -> S3:
    return S3(replace(configured(get_settings()), breaker=None))


@pytest.fixture
def between(client: Any, s3_endpoint: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """Stands between the run and the server; `answer` passes requests on."""
    del client
    _point_to(web.url, monkeypatch)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the retries
    with httpx.Client(base_url=s3_endpoint) as server:
        web.answer = lambda asked: _passed_on(server, asked)
        yield web


def _passed_on(server: httpx.Client, asked: Asked) -> Reply:
    dropped = {"host", "expect", "accept-encoding", "content-length", "connection"}
    headers = {name: value for name, value in asked.headers.items() if name not in dropped}
    answer = server.request(asked.method, asked.target, headers=headers, content=asked.body)
    kept = {name: value for name, value in answer.headers.items() if name not in {"content-length", "connection"}}
    return Reply(answer.content, answer.status_code, kept)


def _destination(
    path: str = "s3://lake/orders", write: Literal["append", "replace"] = "append", name: str = "orders", **more: object
) -> Destination:
    declared = {
        "name": name,
        "description": "A test.",
        "source": {"type": "file", "path": "orders.csv"},
        "destination": {"type": "file", "path": path, "write": write, **more},
    }
    return open_destination(Pipeline.model_validate(declared))


def _listed(client: Any, prefix: str = "orders/") -> list[str]:
    """The data objects that a listing shows, without the prefix."""
    found = client.list_objects_v2(Bucket="lake", Prefix=prefix).get("Contents", ())
    keys = [entry["Key"].removeprefix(prefix) for entry in found]
    return [key for key in keys if not key.startswith("_pivotal/")]


def _named(client: Any) -> dict[str, str]:
    """The data files that the manifest names."""
    manifest = client.get_object(Bucket="lake", Key="orders/_pivotal/manifest.json")["Body"].read()
    return {name: key for name, key in json.loads(manifest)["files"].items() if not name.startswith("_pivotal/")}


def _ids(client: Any) -> list[int]:
    """The rows, read by the manifest."""
    found = []
    for key in _named(client).values():
        content = client.get_object(Bucket="lake", Key=f"orders/{key}")["Body"].read()
        found += pq.read_table(io.BytesIO(content))["id"].to_pylist()
    return sorted(found)


def test_a_pipeline_writes_to_s3_and_another_reads_it_back(client: Any, project: Path) -> None:
    (project / "in.csv").write_text("id,amount,note\n1,1.50,\n2,-3.25,ü\n")
    declared = {
        "name": "out",
        "description": "A test.",
        "source": {"type": "file", "path": "in.csv"},
        "destination": {"type": "file", "path": "s3://lake/orders", "format": "csv", "write": "replace"},
    }
    run_pipeline(Pipeline.model_validate(declared))
    source = {"type": "file", "path": "s3://lake/orders/*.csv"}
    back = {"type": "file", "path": "back", "format": "csv", "write": "replace"}

    report = run_pipeline(Pipeline.model_validate({**declared, "name": "back", "source": source, "destination": back}))

    assert report.loaded == 2
    assert (project / "back/data.csv").read_text() == (project / "in.csv").read_text()
    assert len(_listed(client)) == 1


@pytest.mark.parametrize(
    ("more", "suffix"),
    [
        ({"format": "csv", "compression": "gzip"}, ".csv.gz"),
        ({"format": "ndjson"}, ".ndjson"),
        ({"format": "excel"}, ".xlsx"),
    ],
)
def test_every_format_and_partitioned_paths(client: Any, more: dict[str, Any], suffix: str) -> None:
    load(_destination("s3://lake/orders/{shop}", **more), rows(id=[1, 2], shop=["a/b", None]))

    assert sorted(_named(client)) == [
        f"__HIVE_DEFAULT_PARTITION__/orders-run-1{suffix}",
        f"a%2Fb/orders-run-1{suffix}",
    ]
    assert sorted(_listed(client)) == sorted(_named(client).values())


def test_a_run_for_a_partition_replaces_its_objects_only(client: Any, project: Path) -> None:
    shops = Pipeline.model_validate(
        {
            "name": "orders",
            "description": "A test.",
            "source": {"type": "file", "path": "in.csv"},
            "destination": {"type": "file", "path": "s3://lake/orders/{shop}", "write": "append"},
            "partitions": {"by": "shop", "values": ["a b", "c"]},
        }
    )
    (project / "in.csv").write_text("id,shop\n1,a b\n2,c\n")
    run_pipeline(shops)
    kept = {name: key for name, key in _named(client).items() if name.startswith("c/")}
    (project / "in.csv").write_text("id,shop\n3,a b\n4,c\n")

    run_pipeline(shops, partition=partition_of(shops, "a b"))

    named = _named(client)
    assert {name.partition("/")[0] for name in named} == {"a b", "c"}
    assert kept.items() <= named.items()
    assert len(named) == 2


def test_nothing_is_listed_before_the_commit(client: Any) -> None:
    with _destination().begin("run-1") as running:
        running.write(rows(id=[1, 2]))
        running.quarantine([bad("x", 1)])
        assert running.loaded().inserted == 2
        assert _listed(client) == []
        running.commit({"cursor": 1})

    assert _ids(client) == [1, 2]
    (key,) = _listed(client)
    assert key.startswith("orders-run-1.")
    assert key.endswith(".parquet")


def test_replaced_objects_are_deleted_and_those_of_others_stay(client: Any) -> None:
    client.put_object(Bucket="lake", Key="orders/theirs.parquet", Body=b"theirs")
    client.put_object(Bucket="lake", Key="orders-of-others/data.parquet", Body=b"theirs")
    load(_destination(), rows(id=[1]), run_id="run-1")
    load(_destination(), rows(id=[2]), run_id="run-1")
    assert _ids(client) == [2]

    load(_destination(write="replace"), rows(id=[3]), run_id="run-2")

    assert _ids(client) == [3]
    assert sorted(_listed(client)) == sorted([*_named(client).values(), "theirs.parquet"])
    assert _listed(client, "orders-of-others/") == ["data.parquet"]


def test_a_large_object_goes_in_parts_as_its_bytes_come(client: Any) -> None:
    noise = [f"{number * 7919:01000d}" for number in range(25_000)]

    load(_destination(format="csv"), rows(id=list(range(25_000)), noise=noise))

    (key,) = _named(client).values()
    found = client.head_object(Bucket="lake", Key=f"orders/{key}", PartNumber=1)
    assert (found["PartsCount"], found["ContentLength"]) == (3, 8 << 20)


def test_whatever_request_is_the_last_one_the_next_run_ends_as_if_undisturbed(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, left = BaseClient._make_api_call, iter(range(10**9))

    def call_or_die(self: Any, operation: str, arguments: Any) -> Any:
        if next(left, None) is None:
            raise SystemExit(operation)
        return call(self, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", call_or_die)
    destination, died, step = _destination(write="replace"), True, 0
    load(destination, rows(id=[0]), run_id="run-0", state={"cursor": 0}, quarantine=[bad("x", 0)])

    while died:
        step += 1
        run = partial(load, destination, rows(id=[step]), run_id=f"run-{step}", state={"cursor": step})
        left, died = iter(range(step)), False
        try:
            run(quarantine=[bad("x", step)])
        except SystemExit:
            died = True
        left = iter(range(10**9))
        if (destination.state() or {})["cursor"] == step - 1:
            assert (_ids(client), len(destination.quarantined())) == ([step - 1], step)
            run(quarantine=[bad("x", step)])
        assert (_ids(client), len(destination.quarantined())) == ([step], step + 1)

    assert step > 15
    assert sorted(_listed(client)) == sorted(_named(client).values())
    assert client.list_multipart_uploads(Bucket="lake").get("Uploads", []) == []


def test_of_two_runs_at_the_same_time_only_the_one_that_began_later_publishes(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(_destination(), rows(id=[0]), run_id="run-0")

    with pytest.raises(DestinationError, match="another run has begun to write there") as error:  # noqa: PT012, SIM117
        with _destination().begin("run-1") as first:
            first.write(rows(id=[1]))
            first.loaded()
            _on_another_machine(tmp_path, monkeypatch)
            load(_destination(name="other"), rows(id=[2]), run_id="run-2")
            first.commit(None)

    assert error.value.retryable
    assert _ids(client) == [0, 2]
    assert sorted(_listed(client)) == sorted(_named(client).values())


def test_two_runs_that_begin_from_the_same_state_do_not_both_load(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _destination(), _destination()
    assert first.state() == second.state()
    load(first, rows(id=[1]), run_id="run-1", state={"cursor": 1})
    _on_another_machine(tmp_path, monkeypatch)

    with pytest.raises(DestinationError, match="another run has committed since this one read where to start"):
        load(second, rows(id=[1]), run_id="run-2", state={"cursor": 1})

    assert _ids(client) == [1]


def _on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the locks of this one do not hold."""
    monkeypatch.setenv("PIVOTAL_ROOT", str(tmp_path / "other"))
    get_settings.cache_clear()


def test_runs_on_one_machine_wait_for_each_other(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "0.1")
    get_settings.cache_clear()

    with _destination().begin("run-1"), pytest.raises(DestinationError, match="another run writes there"):
        _destination(name="other").begin("run-2")

    load(_destination(name="other"), rows(id=[2]))
    assert _ids(client) == [2]


def _every(number: int, fault: Callable[[], Reply], whole: Callable[[Asked], Reply]) -> Callable[[Asked], Reply]:
    """Fails each n-th request."""
    counted = iter(range(10**9))
    return lambda asked: fault() if next(counted) % number == 0 else whole(asked)


def test_a_server_that_answers_503_and_500_and_breaks_off_is_asked_again(client: Any, between: Web) -> None:
    faults = _cycle(Reply(status=503), Reply(status=500), Reply(status=None))
    between.answer = _every(3, lambda: next(faults), between.answer)

    load(_destination(), rows(id=[1]), run_id="run-1", state={"cursor": 1}, quarantine=[bad("x", 1)])
    load(_destination(write="replace"), rows(id=[2]), run_id="run-2", state={"cursor": 2})

    assert _ids(client) == [2]
    assert sorted(_listed(client)) == sorted(_named(client).values())
    assert _destination().state() == {"cursor": 2}


def _cycle(*replies: Reply) -> Iterator[Reply]:
    while True:
        yield from replies


@pytest.mark.parametrize("lost", ["PUT", "POST"])
def test_an_answer_that_is_lost_is_no_failure_and_nothing_is_written_twice(
    client: Any, between: Web, lost: str
) -> None:
    whole, seen = between.answer, set[tuple[str, bytes]]()

    def answer(asked: Asked) -> Reply:
        reply = whole(asked)
        first = asked.method == lost and "uploads" not in asked.target and (asked.target, asked.body) not in seen
        seen.add((asked.target, asked.body))
        return Reply(status=None) if first else reply

    between.answer = answer
    load(_destination(), rows(id=[1]), state={"cursor": 1})

    assert _ids(client) == [1]
    assert _destination().state() == {"cursor": 1}


@pytest.mark.parametrize(
    ("reply", "at", "message", "retryable"),
    [
        (
            Reply(_REFUSED % (b"SlowDown", b"Reduce your rate."), 503),
            0,
            "Reduce your rate (503 SlowDown, after 5",
            True,
        ),
        (
            Reply(_REFUSED % (b"SlowDown", b"Reduce your rate."), 503),
            6,
            "Reduce your rate (503 SlowDown, after 5",
            True,
        ),
        (Reply(_REFUSED % (b"InternalError", b"Oops."), 500), 10, "Oops (500 InternalError, after 5 attempts)", True),
        (Reply(_REFUSED % (b"AccessDenied", b"Access Denied"), 403), 3, "Access Denied (403 AccessDenied)", False),
    ],
    ids=["503 at once", "503 while rows are sent", "500 at the commit", "403"],
)
def test_a_server_that_stays_in_trouble_fails_the_run_with_one_message_and_changes_nothing(
    client: Any, between: Web, reply: Reply, at: int, message: str, retryable: bool
) -> None:
    load(_destination(), rows(id=[0]), run_id="run-0", state={"cursor": 0})
    whole, begun = between.answer, len(between.asked)
    between.answer = lambda asked: reply if len(between.asked) - begun > at else whole(asked)

    with pytest.raises(PivotalError) as error:
        load(_destination(), rows(id=[1]), run_id="run-1", state={"cursor": 1})

    assert isinstance(error.value, IntegrationError)
    assert message in error.value.message
    assert error.value.message.startswith("s3://lake/orders/")
    assert error.value.retryable == retryable
    assert error.value.hint
    between.answer = whole
    assert _ids(client) == [0]
    load(_destination(), rows(id=[1]), run_id="run-1", state={"cursor": 1})
    assert _ids(client) == [0, 1]
    assert sorted(_listed(client)) == sorted(_named(client).values())


@pytest.mark.usefixtures("client")
def test_a_bucket_that_is_not_there_is_named_with_a_hint() -> None:
    with pytest.raises(IntegrationError, match=r"s3://nowhere/orders/.*: The specified bucket does not exist") as error:
        _destination("s3://nowhere/orders").state()

    assert "check the bucket's name" in str(error.value.hint)

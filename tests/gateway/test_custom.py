"""Senders that `webhooks.yaml` declares."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from starlette.datastructures import Headers

from cli.serve import program
from errors import ConfigError
from events.envelope import Event
from events.sqlite import SqliteEventLog
from gateway.declared import Standard, declared
from gateway.provider import Hook
from gateway.providers.custom import Custom
from gateway.refusal import RefusedError
from settings import Settings
from tests.events.strategies import TEXT
from tests.gateway.conftest import Gateway, Serve, serving
from tests.gateway.signing import JSON, body_of

OLD, NEW = (base64.b64encode(each).decode() for each in (b"a key that is rotated out", b"the key of now"))
PLAIN = ("the-old-one", "the-new-one")
VARIABLES = {"SVIX_SECRETS": f" whsec_{OLD} , {NEW}", "PLAIN_SECRETS": " , ".join(PLAIN)}
DECLARED = """
svix: {type: standard, secrets: "${SVIX_SECRETS}"}
github:
  type: hmac
  secrets: ${PLAIN_SECRETS}
  header: X-Hub-Signature-256
  prefix: "sha256="
  event: {type: header:X-GitHub-Event, id: header:X-GitHub-Delivery, aggregate: repo.full_name, aggregate_type: repo}
shop: {type: hmac, secrets: "${PLAIN_SECRETS}", header: X-Shop-Hmac, encoding: base64, event: {id: order.id, time: at}}
old: {type: hmac, secrets: "${PLAIN_SECRETS}", header: X-Signature, algorithm: sha1}
tools: {type: api_key, secrets: "${PLAIN_SECRETS}"}
bearer: {type: api_key, secrets: "${PLAIN_SECRETS}", header: Authorization, prefix: "Bearer "}
"""
EVENT = {"type": "contact.created", "timestamp": "2026-01-02T03:04:05+01:00", "data": {"id": 7}}
BODY = body_of(EVENT)


@pytest.fixture
def declaring(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Gateway]:
    """A receiver with senders of its own."""

    def start() -> Gateway:
        for name, value in VARIABLES.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "webhooks.yaml").write_text(DECLARED)
        return serve(root=tmp_path)

    return start


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A receiver for requests that are refused: they leave nothing behind, so that one is enough."""
    root = tmp_path_factory.mktemp("project")
    (root / "webhooks.yaml").write_text(DECLARED)
    with pytest.MonkeyPatch.context() as patch, closing(SqliteEventLog(root / "events.db")) as log:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        with serving(log, {"root": root}) as served:
            yield served


def standard(body: bytes = BODY, key: str = NEW, *, id_: str = "msg_1", age: float = 0) -> dict[str, str]:
    """Headers of Standard Webhooks, by the specification."""
    timestamp = str(int(time.time() - age))
    digest = hmac.new(base64.b64decode(key), f"{id_}.{timestamp}.".encode() + body, "sha256").digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {**JSON, "webhook-id": id_, "webhook-timestamp": timestamp, "webhook-signature": signature}


def hub(body: bytes = BODY, secret: str = PLAIN[1], **changed: str) -> dict[str, str]:
    """Headers as GitHub's."""
    signature = hmac.new(secret.encode(), body, "sha256").hexdigest()
    return {
        "X-Hub-Signature-256": f"sha256={signature}",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": "d-1",
    } | changed


def post(gateway: Gateway, name: str, headers: Mapping[str, str], body: bytes = BODY) -> int:
    return gateway.http.post(f"/webhooks/custom/{name}", content=body, headers=headers).status_code


def stored(gateway: Gateway) -> list[Event]:
    return [recorded.event for recorded in gateway.log.read(0, 100)]


# --- what is stored --------------------------------------------------------------------------------------------------


def test_an_event_by_standard_webhooks_is_stored_under_its_signed_id(declaring: Callable[[], Gateway]) -> None:
    gateway = declaring()

    assert [post(gateway, "svix", standard()), post(gateway, "svix", standard())] == [200, 200]

    [event] = stored(gateway)
    assert (event.type, event.data) == ("custom.svix.contact.created", EVENT)
    assert (event.metadata.source, event.metadata.dedupe_key) == ("custom.svix", "msg_1")
    assert (event.aggregate_type, event.aggregate_id) == ("event", "msg_1")
    assert event.timestamp == datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)


def test_type_id_and_aggregate_stand_where_the_file_says(declaring: Callable[[], Gateway]) -> None:
    gateway = declaring()
    body = body_of({"repo": {"full_name": "ada/engine"}, "type": "not this one", "id": 3})

    assert post(gateway, "github", hub(body), body) == 200

    [event] = stored(gateway)
    assert (event.type, event.aggregate_type, event.aggregate_id) == ("custom.github.push", "repo", "ada/engine")
    assert event.metadata.dedupe_key == hashlib.sha256(body).hexdigest()


def test_a_recorded_request_with_other_headers_is_no_other_event(declaring: Callable[[], Gateway]) -> None:
    gateway = declaring()

    for changed in ({}, {"X-GitHub-Delivery": "d-2"}, {"X-GitHub-Event": "release"}):
        assert post(gateway, "github", hub() | changed) == 200

    assert [event.type for event in stored(gateway)] == ["custom.github.push"]


def test_without_a_type_or_an_id_an_event_is_received_and_known_again_by_its_body(
    declaring: Callable[[], Gateway],
) -> None:
    gateway = declaring()
    for body in (b'{"a": 1}', b'{"a": 1}', b'{"a": 2}', b'{"id": true, "type": 7.5}', b'{"id": 12, "type": ""}'):
        assert post(gateway, "tools", {"X-Api-Key": PLAIN[0]}, body) == 200

    assert [(event.type, event.metadata.dedupe_key) for event in stored(gateway)] == [
        ("custom.tools.received", hashlib.sha256(b'{"a": 1}').hexdigest()),
        ("custom.tools.received", hashlib.sha256(b'{"a": 2}').hexdigest()),
        ("custom.tools.received", hashlib.sha256(b'{"id": true, "type": 7.5}').hexdigest()),
        ("custom.tools.received", "12"),
    ]


def test_large_numbers_and_ids_that_look_like_them_stay_as_they_are(declaring: Callable[[], Gateway]) -> None:
    gateway = declaring()
    told = {"a": 10**400, "b": 1.5e300, "c": "1e400", "d": "Infinity"}

    assert post(gateway, "tools", {"X-Api-Key": PLAIN[0]}, body_of(told)) == 200

    assert [event.data for event in stored(gateway)] == [told]


def test_two_senders_may_use_the_same_ids(declaring: Callable[[], Gateway]) -> None:
    gateway = declaring()
    body = b'{"id": "1"}'

    assert post(gateway, "tools", {"X-Api-Key": PLAIN[0]}, body) == 200
    assert post(gateway, "bearer", {"Authorization": f"Bearer {PLAIN[0]}"}, body) == 200

    assert [event.metadata.source for event in stored(gateway)] == ["custom.tools", "custom.bearer"]


def test_every_way_to_sign_and_every_active_secret_is_accepted(declaring: Callable[[], Gateway]) -> None:
    gateway = declaring()
    for number, secret in enumerate(PLAIN):
        body = body_of({"order": {"id": number}, "at": 1_700_000_000})
        sha1 = hmac.new(secret.encode(), body, "sha1").hexdigest()
        in_base64 = base64.b64encode(hmac.new(secret.encode(), body, "sha256").digest()).decode()
        assert post(gateway, "github", hub(body, secret), body) == 200
        assert post(gateway, "old", {"X-Signature": sha1.upper()}, body) == 200
        assert post(gateway, "shop", {"X-Shop-Hmac": in_base64}, body) == 200
        assert post(gateway, "tools", {"X-Api-Key": secret}, body) == 200
    assert post(gateway, "svix", standard(key=OLD)) == 200

    orders = [event for event in stored(gateway) if event.metadata.source == "custom.shop"]
    assert [event.metadata.dedupe_key for event in orders] == ["0", "1"]
    assert orders[0].timestamp == datetime.fromtimestamp(1_700_000_000, UTC)


def test_one_of_several_signatures_is_enough(declaring: Callable[[], Gateway]) -> None:
    headers = standard()
    signatures = f"v1a,asymmetric v1,bm90IG91cnM= {headers['webhook-signature']} v2,x"

    assert post(declaring(), "svix", headers | {"webhook-signature": signatures}) == 200


# --- what is refused -------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Callable[[], dict[str, str]], bytes, int, str]] = {
    "no signature": ("svix", lambda: {**standard(), "webhook-signature": ""}, BODY, 400, "no v1 signature"),
    "no id": ("svix", lambda: without("webhook-id", standard()), BODY, 401, "no webhook-id header"),
    "another id": ("svix", lambda: standard() | {"webhook-id": "msg_2"}, BODY, 401, "no secret matched; 2 tried"),
    "garbage": ("svix", lambda: standard() | {"webhook-signature": "x y,z ,, v1"}, BODY, 400, "no v1 signature"),
    "no base64": ("svix", lambda: standard() | {"webhook-signature": "v1,%%%"}, BODY, 401, "no secret matched"),
    "another version": ("svix", lambda: standard() | {"webhook-signature": "v2,x"}, BODY, 400, "no v1 signature"),
    "a changed body": ("svix", standard, BODY + b" ", 401, "no secret matched"),
    "not UTF-8": ("svix", lambda: standard(b"\xff"), b"\xff", 400, "not JSON"),
    "signed bad JSON": ("svix", lambda: standard(b"{"), b"{", 400, "not JSON"),
    "signed JSON that is no object": ("svix", lambda: standard(b"[]"), b"[]", 400, "not a JSON object"),
    "too old": ("svix", lambda: standard(age=412), BODY, 401, "s old; 300 s allowed"),
    "from the future": ("svix", lambda: standard(age=-412), BODY, 401, "s in the future"),
    "a time in words": ("svix", lambda: standard() | {"webhook-timestamp": "now"}, BODY, 400, "no timestamp"),
    "no HMAC": ("github", lambda: without("X-Hub-Signature-256", hub()), BODY, 401, "no X-Hub-Signature-256 header"),
    "no prefix": ("github", lambda: hub() | {"X-Hub-Signature-256": "ab"}, BODY, 400, "does not start with 'sha256='"),
    "a garbled HMAC": ("github", lambda: hub() | {"X-Hub-Signature-256": "sha256=z"}, BODY, 401, "no secret matched"),
    "another secret": ("github", lambda: hub(secret="x"), BODY, 401, "no secret matched; 2 tried"),
    "another algorithm": ("old", lambda: {"X-Signature": "0" * 64}, BODY, 401, "no secret matched"),
    "no key": ("tools", dict, BODY, 401, "no X-Api-Key header"),
    "an empty key": ("tools", lambda: {"X-Api-Key": ""}, BODY, 401, "no secret matched"),
    "another key": ("tools", lambda: {"X-Api-Key": "the-new-onf"}, BODY, 401, "no secret matched; 2 tried"),
    "another scheme": ("bearer", lambda: {"Authorization": "Basic eA=="}, BODY, 400, "does not start with 'Bearer '"),
}  # fmt: skip


def without(name: str, headers: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_its_sender_did_not_send_is_refused(
    refusing: Gateway, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    sender, headers, body, status, reason = REFUSED[name]

    assert post(refusing, sender, headers(), body) == status
    assert refusing.log.head() == 0
    [told] = [vars(record) for record in caplog.records if record.name.startswith("gateway")]
    assert reason in told["reason"]
    assert not [secret for secret in (OLD, NEW, *PLAIN) if secret in f"{told}{caplog.text}"]


def test_a_header_that_stands_twice_is_refused(refusing: Gateway) -> None:
    for sender, headers in (("svix", standard()), ("github", hub()), ("tools", {"X-Api-Key": PLAIN[0]})):
        twice = [*headers.items(), list(headers.items())[1 if sender == "svix" else 0]]

        answer = refusing.http.post(f"/webhooks/custom/{sender}", content=BODY, headers=twice)
        assert answer.status_code == 400


def test_a_sender_that_is_not_declared_is_404(refusing: Gateway) -> None:
    assert post(refusing, "nobody", standard()) == 404


@pytest.mark.parametrize(
    ("secrets", "reason"),
    [
        (None, "SVIX_SECRETS is not set"),
        (" , ", "SVIX_SECRETS is not set"),
        ("whsec_%%%", "secret 1 of ${SVIX_SECRETS} is not base64"),
        (f"{NEW},whsec_", "secret 2 of ${SVIX_SECRETS} is not base64"),
    ],
)
def test_without_secrets_that_can_be_used_a_sender_hears_503_and_the_others_are_served(
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    secrets: str | None,
    reason: str,
) -> None:
    monkeypatch.setenv("PLAIN_SECRETS", PLAIN[0])
    monkeypatch.delenv("SVIX_SECRETS", raising=False)
    if secrets is not None:
        monkeypatch.setenv("SVIX_SECRETS", secrets)
    (tmp_path / "webhooks.yaml").write_text(DECLARED)
    gateway = serve(root=tmp_path)

    assert post(gateway, "svix", standard()) == 503
    assert any(reason in vars(record)["reason"] for record in caplog.records if record.levelno == logging.ERROR)
    assert post(gateway, "tools", {"X-Api-Key": PLAIN[0]}) == 200


# --- as the official library has it ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sampled_from([OLD, NEW, base64.b64encode(b"other").decode()]), TEXT, st.integers(0, 1000), st.integers(0, 9))
def test_it_is_as_the_official_library_has_it(key: str, body: str, age: int, flipped: int) -> None:
    sent_at = datetime.fromtimestamp(time.time() // 1 - age, UTC)
    signature = Webhook(key).sign("msg_1", sent_at, body)
    if flipped == 0:
        signature = signature[:-2] + ("A" if signature[-2] != "A" else "E") + "="
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": signature,
    }

    def theirs(secret: str) -> bool:
        try:
            Webhook(secret).verify(body, headers, json_parse=False)
        except WebhookVerificationError:
            return False
        return True

    if abs(age - 300) > 2:  # the clock goes on between the two
        assert taken(headers, body.encode()) == any(theirs(secret) for secret in (OLD, NEW))


def taken(headers: Mapping[str, str], body: bytes) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVIX_SECRETS", VARIABLES["SVIX_SECRETS"])
        try:
            Custom("svix", Standard(type="standard", secrets="${SVIX_SECRETS}"), Settings()).receive(
                Hook("https://x/webhooks/custom/svix", Headers(headers), body)
            )
        except RefusedError as refusal:
            return refusal.status == 400  # genuine, and not JSON
    return True


# --- the file --------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, tuple[int, int], str, str]] = {
    "an unknown key": ("a: {type: standard, secrets: '${A}', secret: x}", (1, 38), "unknown key", "mean `secrets`?"),
    "an unknown type": ("a:\n  type: standart", (2, 9), "unknown type", "did you mean `standard`?"),
    "no type": ("a: {secrets: '${A}'}", (1, 4), "`type` is missing in `a`", "choose standard, hmac, api_key"),
    "no secrets": ("a: {type: standard}", (1, 4), "`secrets` is missing in `a`", "${GITHUB_SECRETS}"),
    "no header": ("a: {type: hmac, secrets: '${A}'}", (1, 4), "`header` is missing in `a`", "X-Hub-Signature-256"),
    "a secret in the file": ("a: {type: api_key, secrets: s3cret}", (1, 29), "`secrets` is", "in a variable"),
    "an unknown algorithm": (
        "a: {type: hmac, secrets: '${A}', header: X, algorithm: md5}", (1, 56), "'sha256', 'sha1' or 'sha512'", "",
    ),
    "no name": ("My-Hooks: {type: standard, secrets: '${A}'}", (1, 1), "not a name", "part of the URL"),
    "an unknown key below": (
        "a: {type: standard, secrets: '${A}', event: {typ: x}}", (1, 46), "unknown key", "did you mean `type`?",
    ),
    "a place that is none": (
        "a: {type: standard, secrets: '${A}', event: {id: 'header:'}}", (1, 50), "not written as it must be", "own id",
    ),
    "no mapping": ("a: standard", (1, 4), "`a` is not", ""),
    "no YAML": ("a: [", (2, 1), "not YAML", ""),
    "a list": ("- a", (1, 1), "a list, not a mapping", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_in_the_file_is_told_with_its_place(tmp_path: Path, name: str) -> None:
    written, (line, column), message, hint = MISTAKES[name]
    (tmp_path / "webhooks.yaml").write_text(written)

    with pytest.raises(ConfigError) as raised:
        declared(tmp_path)

    [problem] = raised.value.problems
    assert (problem.file, problem.line, problem.column) == ("webhooks.yaml", line, column), problem
    assert message in problem.message
    assert hint in problem.hint
    assert "s3cret" not in str(problem)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "webhooks.yaml").write_text("a: {type: standart}\nb: {type: hmac}\nB: {type: hmac}\n")

    with pytest.raises(ConfigError) as raised:
        declared(tmp_path)

    assert [problem.line for problem in raised.value.problems] == [1, 2, 2, 3, 3, 3]


def test_a_receiver_with_a_mistake_in_the_file_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "webhooks.yaml").write_text("svix: {type: standart}\n")
    environment = os.environ | {"PIVOTAL_ROOT": str(tmp_path), "PIVOTAL_EVENTS_URL": f"sqlite:///{tmp_path}/e.db"}

    ended = subprocess.run(
        [program("pivotal"), "gateway", "--port", "0"], check=False, capture_output=True, env=environment
    )

    told = "webhooks.yaml:1:14: unknown type: 'standart'\n  hint: did you mean `standard`?\n1 mistake in 1 file\n"
    assert (ended.returncode, ended.stderr.decode()) == (1, told)


def test_without_the_file_nobody_is_declared(tmp_path: Path) -> None:
    assert declared(tmp_path) == {}

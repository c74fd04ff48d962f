"""The sandbox's SendGrid beside sending: templates, contacts, suppressions; with the SDK, and without it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sendgrid import SendGridAPIClient

from sandbox.serve import Running
from sandbox.webhooks import Endpoint
from tests.sandbox.conftest import Receiver
from tests.sandbox.test_sendgrid import events, mail

pytestmark = pytest.mark.usefixtures("served")

Until = Callable[[Callable[[], bool]], None]
VERSION = {"name": "v1", "subject": "Hello {{name}}", "html_content": "<p>{{name}}</p>"}


@pytest.fixture
def sdk(served: Running) -> Any:
    return SendGridAPIClient("SG.of.tests", host=served.sendgrid_base).client


@pytest.fixture
def told(served: Running, receiver: Receiver) -> Receiver:
    """Where the events of mails arrive."""
    served.sandbox.webhooks.endpoints.append(Endpoint(service="sendgrid", url=receiver.url))
    return receiver


def kinds(receiver: Receiver) -> list[str]:
    return sorted(event["event"] for event in events(receiver))


def template(http: httpx.Client, *versions: dict[str, Any]) -> str:
    id_ = http.post("/v3/templates", json={"name": "welcome", "generation": "dynamic"}).json()["id"]
    for version in versions:
        assert http.post(f"/v3/templates/{id_}/versions", json=version).status_code == 201
    return str(id_)


# --- what becomes of mail ---------------------------------------------------------------------------------------


def test_a_template_gives_mail_its_html(sendgrid_http: httpx.Client, sdk: Any, told: Receiver, until: Until) -> None:
    link = VERSION | {"html_content": '<a href="https://example.com">{{name}}</a>'}
    id_ = template(sendgrid_http, link)
    sdk.mail.send.post(request_body=mail(template_id=id_, subject=None, content=None))
    until(lambda: len(events(told)) == 4)
    assert kinds(told) == ["click", "delivered", "open", "processed"]


def test_mail_of_a_template_that_is_not_there_is_taken_and_dropped(sdk: Any, told: Receiver, until: Until) -> None:
    taken = sdk.mail.send.post(request_body=mail(template_id=f"d-{'0' * 32}", content=None))
    assert taken.status_code == 202
    until(lambda: len(events(told)) == 1)
    assert [(event["event"], event["reason"]) for event in events(told)] == [("dropped", "Invalid SMTPAPI header")]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"open_tracking": {"enable": False}}, ["click", "delivered", "processed"]),
        ({"click_tracking": {"enable": False}}, ["delivered", "open", "processed"]),
    ],
)
def test_what_is_not_tracked_is_not_told(
    sdk: Any, told: Receiver, until: Until, settings: dict[str, Any], wanted: list[str]
) -> None:
    sdk.mail.send.post(request_body=mail(tracking_settings=settings))
    until(lambda: len(events(told)) == 3)
    assert kinds(told) == wanted


def test_mail_is_delivered_when_it_is_due(served: Running, sdk: Any, told: Receiver, until: Until) -> None:
    sdk.mail.send.post(request_body=mail(send_at=int(time.time()) + 3600))
    sdk.mail.send.post(request_body=mail("bob@example.com"))
    until(lambda: len(events(told)) == 4)
    assert {event["email"] for event in events(told)} == {"bob@example.com"}
    assert httpx.post(f"{served.url}/_sandbox/clock", json={"seconds": 3700}).status_code == 204
    until(lambda: len(events(told)) == 8)
    assert {event["email"] for event in events(told)} == {"ada@example.com", "bob@example.com"}


@pytest.mark.parametrize(
    ("address", "event", "suppression"),
    [
        ("block@example.com", "bounce", "blocks"),
        ("spam@example.com", "spamreport", "spam_reports"),
        ("unsubscribe@example.com", "unsubscribe", "unsubscribes"),
    ],
)
def test_who_does_not_want_mail_is_on_a_list(
    sendgrid_http: httpx.Client, told: Receiver, until: Until, address: str, event: str, suppression: str
) -> None:
    sendgrid_http.post("/v3/mail/send", json=mail(address))
    until(lambda: event in kinds(told))
    assert [each["email"] for each in sendgrid_http.get(f"/v3/suppression/{suppression}").json()] == [address]
    before = len(events(told))
    sendgrid_http.post("/v3/mail/send", json=mail(address))
    until(lambda: len(events(told)) > before)
    # A block is for one mail only.
    assert ("dropped" in kinds(told)) == (suppression != "blocks")


def test_who_left_a_group_gets_its_mail_no_more_but_all_other(
    sendgrid_http: httpx.Client, told: Receiver, until: Until
) -> None:
    group = sendgrid_http.post("/v3/asm/groups", json={"name": "News", "description": "Weekly"}).json()["id"]
    news = mail("unsubscribe@example.com", asm={"group_id": group})
    sendgrid_http.post("/v3/mail/send", json=news)
    until(lambda: "group_unsubscribe" in kinds(told))
    assert {event["asm_group_id"] for event in events(told)} == {group}
    sendgrid_http.post("/v3/mail/send", json=news)
    until(lambda: "dropped" in kinds(told))
    assert sendgrid_http.get(f"/v3/asm/groups/{group}/suppressions").json() == ["unsubscribe@example.com"]
    assert sendgrid_http.get("/v3/suppression/unsubscribes").json() == []
    assert sendgrid_http.get("/v3/asm/groups").json()[0]["unsubscribes"] == 1


# --- templates --------------------------------------------------------------------------------------------------


def test_a_template_has_one_active_version(sdk: Any) -> None:
    made = json.loads(sdk.templates.post(request_body={"name": "welcome", "generation": "dynamic"}).body)
    assert made["id"].startswith("d-")
    versions = sdk.templates._(made["id"]).versions
    first, second = (json.loads(versions.post(request_body=VERSION | {"name": name}).body) for name in ("v1", "v2"))
    assert (first["active"], second["active"]) == (1, 0)
    active = json.loads(versions._(second["id"]).activate.post().body)
    assert active["active"] == 1
    shown = json.loads(sdk.templates._(made["id"]).get().body)
    assert [version["active"] for version in shown["versions"]] == [0, 1]
    changed = json.loads(versions._(first["id"]).patch(request_body={"subject": "Hi", "active": 1}).body)
    assert (changed["subject"], changed["active"], changed["html_content"]) == ("Hi", 1, VERSION["html_content"])
    assert versions._(second["id"]).delete().status_code == 204
    assert json.loads(sdk.templates._(made["id"]).patch(request_body={"name": "Hi"}).body)["name"] == "Hi"
    assert sdk.templates._(made["id"]).delete().status_code == 204


def test_templates_are_listed_by_page_and_generation(sendgrid_http: httpx.Client) -> None:
    for name in ("a", "b", "c"):
        sendgrid_http.post("/v3/templates", json={"name": name, "generation": "dynamic"})
    sendgrid_http.post("/v3/templates", json={"name": "old"})
    page = sendgrid_http.get("/v3/templates?generations=dynamic&page_size=2").json()
    assert ([each["name"] for each in page["result"]], page["_metadata"]["count"]) == (["a", "b"], 3)
    rest = sendgrid_http.get(page["_metadata"]["next"] + "&generations=dynamic").json()
    assert ([each["name"] for each in rest["result"]], "next" in rest["_metadata"]) == (["c"], False)
    assert [each["name"] for each in sendgrid_http.get("/v3/templates?page_size=9").json()["result"]] == ["old"]


# --- contacts ---------------------------------------------------------------------------------------------------


def test_contacts_are_added_and_changed_by_jobs(sdk: Any) -> None:
    contacts = sdk.marketing.contacts
    first = {"list_ids": ["l1"], "contacts": [{"email": "Ada@Example.com", "first_name": "Ada"}]}
    job = json.loads(contacts.put(request_body=first).body)["job_id"]
    looks = [json.loads(contacts.imports._(job).get().body) for _ in range(2)]
    assert [look["status"] for look in looks] == ["pending", "completed"]
    assert looks[1]["results"] == {"requested_count": 1, "created_count": 1, "updated_count": 0, "errored_count": 0}
    contacts.put(request_body={"contacts": [{"email": "ada@example.com", "city": "Berlin"}]})
    query = "email LIKE 'ada@%' AND CONTAINS(list_ids, 'l1') AND city = 'Berlin'"
    found = json.loads(contacts.search.post(request_body={"query": query}).body)
    assert (found["contact_count"], found["result"][0]["first_name"]) == (1, "Ada")
    asked = {"emails": ["ADA@example.com", "bob@example.com"]}
    by_email = json.loads(contacts.search.emails.post(request_body=asked).body)["result"]
    assert by_email["bob@example.com"] == {"error": "contact not found"}
    assert contacts.delete(query_params={"ids": by_email["ada@example.com"]["contact"]["id"]}).status_code == 202
    found = json.loads(contacts.search.post(request_body={"query": "email LIKE '%'"}).body)
    assert found["contact_count"] == 0


def test_all_contacts_are_deleted_at_once(sendgrid_http: httpx.Client) -> None:
    sendgrid_http.put("/v3/marketing/contacts", json={"contacts": [{"email": f"{n}@example.com"} for n in range(3)]})
    job = sendgrid_http.delete("/v3/marketing/contacts?delete_all_contacts=true").json()["job_id"]
    looks = [sendgrid_http.get(f"/v3/marketing/contacts/imports/{job}").json() for _ in range(2)]
    assert looks[1]["results"] == {"requested_count": 3, "deleted_count": 3}


@pytest.mark.parametrize(
    ("address", "status"),
    [("refused@example.com", "errored"), ("failing@a.example", "failed"), ("stuck@b.c", "pending")],
)
def test_addresses_decide_what_becomes_of_a_job(sendgrid_http: httpx.Client, address: str, status: str) -> None:
    body = {"contacts": [{"email": address}, {"email": "ada@example.com"}]}
    job = sendgrid_http.put("/v3/marketing/contacts", json=body).json()["job_id"]
    looks = [sendgrid_http.get(f"/v3/marketing/contacts/imports/{job}").json() for _ in range(3)]
    assert looks[-1]["status"] == status


# --- suppressions -----------------------------------------------------------------------------------------------


def test_addresses_are_put_on_lists_and_taken_off(sendgrid_http: httpx.Client) -> None:
    def unsubscribed() -> list[str]:
        return [each["email"] for each in sendgrid_http.get("/v3/suppression/unsubscribes").json()]

    added = sendgrid_http.post("/v3/asm/suppressions/global", json={"recipient_emails": ["a@b.cd", "e@f.gh"]})
    assert (added.status_code, unsubscribed()) == (201, ["a@b.cd", "e@f.gh"])
    assert sendgrid_http.delete("/v3/asm/suppressions/global/a%40b.cd").status_code == 204
    assert unsubscribed() == ["e@f.gh"]
    # As SendGrid does it: a group that is not there is everything.
    sendgrid_http.post("/v3/asm/groups/7/suppressions", json={"recipient_emails": ["x@y.zz"]})
    assert unsubscribed() == ["e@f.gh", "x@y.zz"]


def test_bounces_are_deleted_by_address_or_all(sendgrid_http: httpx.Client) -> None:
    def bounces() -> int:
        return len(sendgrid_http.get("/v3/suppression/bounces").json())

    for number in range(3):
        sendgrid_http.post("/v3/mail/send", json=mail(f"bounce@host-{number}.example.com"))
    assert bounces() == 3
    sendgrid_http.request("DELETE", "/v3/suppression/bounces", json={"emails": ["bounce@host-0.example.com"]})
    assert bounces() == 2
    sendgrid_http.request("DELETE", "/v3/suppression/bounces", json={"delete_all": True})
    assert bounces() == 0


# --- what is refused --------------------------------------------------------------------------------------------

CONTACTS = "/v3/marketing/contacts"
TEMPLATES = "/v3/templates"
MANY = [{"email": f"{number}@example.com"} for number in range(30_001)]

# method, path, body -> status, field, a part of the message
WRONG: list[tuple[str, str, Any, int, str | None, str]] = [
    ("POST", TEMPLATES, {}, 400, "name", "name required"),
    ("POST", TEMPLATES, {"name": "n" * 101}, 400, "name", "at most 100"),
    ("POST", TEMPLATES, {"name": "n", "generation": "modern"}, 400, "generation", "generation invalid"),
    ("GET", TEMPLATES, None, 400, "page_size", "page_size required"),
    ("GET", f"{TEMPLATES}?page_size=201", None, 400, "page_size", "page_size invalid"),
    ("GET", f"{TEMPLATES}/d-0", None, 404, None, "Template not found"),
    ("PATCH", f"{TEMPLATES}/d-0", {"name": "n"}, 404, None, "Template not found"),
    ("POST", f"{TEMPLATES}/ID/versions", {"name": "v"}, 400, "subject", "subject required"),
    ("POST", f"{TEMPLATES}/ID/versions", VERSION | {"active": 2}, 400, "active", "active invalid"),
    ("POST", f"{TEMPLATES}/ID/versions", VERSION, 400, "name", "exists already"),
    ("POST", f"{TEMPLATES}/ID/versions", VERSION | {"name": "v", "subject": "{{a"}, 400, "subject", "parse error"),
    ("POST", f"{TEMPLATES}/ID/versions/0/activate", None, 404, None, "Version not found"),
    ("PUT", CONTACTS, {"contacts": []}, 400, "contacts", "contacts invalid"),
    ("PUT", CONTACTS, {"contacts": MANY}, 400, "contacts", "at most 30000"),
    ("PUT", CONTACTS, {"contacts": [{"first_name": "Ada"}]}, 400, "contacts.0.email", "email required"),
    ("PUT", CONTACTS, {"contacts": [{"email": "ada"}]}, 400, "contacts[0].email", "email address is invalid"),
    ("PUT", CONTACTS, {"contacts": [{"email": "a@b.cd", "age": 7}]}, 400, "contacts.0.age", "does not act on"),
    ("PUT", CONTACTS, {"contacts": [{"email": "a@b.cd", "custom_fields": {"age": 7}}]}, 400,
     "contacts[0].custom_fields", "unknown custom field: age"),
    ("PUT", CONTACTS, {"contacts": [{"email": "a@b.cd", "city": "x" * 61}]}, 400, "contacts.0.city", "at most 60"),
    ("DELETE", CONTACTS, None, 400, "ids", "ids or delete_all_contacts required"),
    ("DELETE", f"{CONTACTS}?delete_all_contacts=yes", None, 400, "delete_all_contacts", "invalid"),
    ("GET", f"{CONTACTS}/imports/0", None, 404, "id", "import not found"),
    ("POST", f"{CONTACTS}/search", {"query": "age > 7"}, 400, "query", "not one that the sandbox understands"),
    ("POST", f"{CONTACTS}/search/emails", {"emails": []}, 400, "emails", "emails invalid"),
    ("POST", f"{CONTACTS}/search/emails", {"emails": ["ada"]}, 400, "emails", "invalid email address"),
    ("POST", f"{CONTACTS}/search/emails", {"emails": ["ada@example.com"]}, 404, None, "no contacts found"),
    ("GET", "/v3/suppression/bouncers", None, 404, None, "Not Found"),
    ("GET", "/v3/suppression/bounces?limit=501", None, 400, "limit", "limit invalid"),
    ("GET", "/v3/suppression/bounces?start_time=yesterday", None, 400, "start_time", "start_time invalid"),
    ("DELETE", "/v3/suppression/bounces", {}, 400, "emails", "emails or delete_all required"),
    ("DELETE", "/v3/suppression/unsubscribes", {"emails": ["a@b.cd"]}, 405, None, "Method Not Allowed"),
    ("POST", "/v3/asm/suppressions/global", {"recipient_emails": []}, 400, "recipient_emails", "invalid"),
    ("POST", "/v3/asm/suppressions/global", {"recipient_emails": ["ada"]}, 400, "recipient_emails.0", "invalid email"),
    ("POST", "/v3/asm/groups", {"name": "n" * 31, "description": "d"}, 400, "name", "at most 30"),
    ("GET", "/v3/asm/groups/7/suppressions", None, 404, None, "resource not found"),
    ("PUT", TEMPLATES, {"name": "n"}, 405, None, "Method Not Allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "field", "message"), WRONG)
def test_a_wrong_request_is_refused_in_sendgrids_shape(
    sendgrid_http: httpx.Client, method: str, path: str, body: Any, status: int, field: str | None, message: str
) -> None:
    id_ = template(sendgrid_http, VERSION) if "ID" in path else ""
    answer = sendgrid_http.request(method, path.replace("ID", id_), json=body)
    assert answer.status_code == status
    assert [each["field"] for each in answer.json()["errors"] if message in each["message"]] == [field]

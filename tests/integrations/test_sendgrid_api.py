"""SendGrid's templates, contacts and suppressions through the client, against the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from events.log import EventLog, open_log
from integrations.calls import NO_ANSWER
from integrations.sendgrid import (
    JOB_FAILED,
    JOB_PENDING,
    Contact,
    SendGrid,
    SendGridIntegrationError,
    VersionParams,
    contacts,
    suppressions,
    templates,
)
from sandbox.serve import Running
from sandbox.wire import Misbehaviour
from tests.integrations.mailing import TRIES, WELCOME, client, sendgrid, tries
from tests.integrations.web import Reply, Web

__all__ = ["sendgrid"]

ADA = Contact(email="ada@example.com")
V1 = VersionParams(name="v1", subject="Hello {{name}}", html_content="<p>{{name}}</p>")
V2 = VersionParams(name="v2", subject="Hello {{name}}", html_content="<b>{{name}}</b>")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(open_log(f"sqlite:///{tmp_path / 'events.db'}")) as log:
        yield log


def kinds(log: EventLog) -> list[str]:
    return [recorded.event.type.removeprefix("pivotal.sendgrid.") for recorded in log.read(0, 100)]


# --- templates --------------------------------------------------------------------------------------------------


def test_a_template_is_made_changed_and_deleted_and_each_change_is_told(served: Running, log: EventLog) -> None:
    template = client(served.sendgrid_base, events=log).templates
    id_ = template.create("welcome")["id"]
    first = template.versions.create(id_, V1)
    second = template.versions.create(id_, V2)
    assert (first["active"], second["active"]) == (1, 0)
    assert template.versions.activate(id_, second["id"])["active"] == 1
    assert template.versions.get(id_, first["id"])["active"] == 0
    assert template.versions.update(id_, first["id"], {"subject": "Hi"})["html_content"] == V1["html_content"]
    assert template.update(id_, "welcome, 2027")["name"] == "welcome, 2027"
    template.versions.delete(id_, first["id"])
    assert [version["name"] for version in template.get(id_)["versions"]] == ["v2"]
    template.delete(id_)
    assert list(template.list()) == []
    assert kinds(log) == [
        "template.created",
        "template.version_created",
        "template.version_created",
        "template.version_activated",
        "template.version_updated",
        "template.updated",
        "template.version_deleted",
        "template.deleted",
    ]


def test_all_templates_are_listed_page_by_page(
    served: Running, sendgrid: SendGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "_PAGE", 2)
    for name in "abcde":
        sendgrid.templates.create(name)
    before = tries(served)
    assert [template["name"] for template in sendgrid.templates.list()] == [*"abcde"]
    assert tries(served) - before == 3


def test_a_template_that_is_wrong_or_not_there_is_refused(sendgrid: SendGrid) -> None:
    with pytest.raises(SendGridIntegrationError, match="404 Template not found"):
        sendgrid.templates.get("d-0")
    id_ = sendgrid.templates.create("welcome")["id"]
    with pytest.raises(SendGridIntegrationError, match=r"parse error.* \(html_content\)"):
        sendgrid.templates.versions.create(id_, {**V1, "html_content": "{{name"})


def test_an_id_is_one_segment_of_the_path_whatever_is_in_it(web: Web) -> None:
    client(web.url).templates.delete("d-0/../d-1?x")
    assert web.asked[0].target == "/v3/templates/d-0%2F..%2Fd-1%3Fx"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"<html>", b"null"])
def test_an_answer_that_is_not_sendgrids_is_told_so(web: Web, body: bytes) -> None:
    web.replies([Reply(body)])
    with pytest.raises(SendGridIntegrationError, match="something that is not SendGrid's") as error:
        list(client(web.url).templates.list())
    assert (error.value.code, len(web.asked)) == (NO_ANSWER, TRIES)


def test_a_template_is_not_made_twice(served: Running, sendgrid: SendGrid) -> None:
    served.sandbox.wire.misbehave(Misbehaviour(service="sendgrid", kind="html", status=502, done=True))
    with pytest.raises(SendGridIntegrationError, match=r"may have been made: look for its name") as error:
        sendgrid.templates.create("welcome")
    assert not error.value.retryable
    assert [template["name"] for template in sendgrid.templates.list()] == ["welcome"]


def test_a_delete_whose_answer_got_lost_has_worked(served: Running, sendgrid: SendGrid) -> None:
    id_ = sendgrid.templates.create("welcome")["id"]
    served.sandbox.wire.misbehave(Misbehaviour(service="sendgrid", kind="reset", done=True))
    sendgrid.templates.delete(id_)
    with pytest.raises(SendGridIntegrationError, match="404"):
        sendgrid.templates.delete(id_)


# --- contacts ---------------------------------------------------------------------------------------------------


def test_contacts_are_added_changed_found_and_removed(served: Running, log: EventLog) -> None:
    people = client(served.sendgrid_base, events=log).contacts
    bob = Contact(email="bob@example.com")
    (added,) = people.upsert([Contact(email="ada@example.com", first_name="Ada"), bob], list_ids=["l1"])
    assert (added.status, added.requested, added.created, added.updated) == ("completed", 2, 2, 0)
    (changed,) = people.upsert([Contact(email="ada@example.com", city="Berlin")])
    assert (changed.created, changed.updated) == (0, 1)
    (found,) = people.search("city = 'Berlin' AND CONTAINS(list_ids, 'l1')")
    assert (found["first_name"], found["email"]) == ("Ada", "ada@example.com")
    by_email = people.find(["ADA@example.com", "nobody@example.com"])
    assert by_email.keys() == {"ada@example.com"}
    (removed,) = people.remove([by_email["ada@example.com"]["id"]])
    assert removed.deleted == 1
    assert people.find(["ada@example.com"]) == {}
    assert kinds(log) == ["contacts.upserted", "contacts.upserted", "contacts.removed"]
    assert "@" not in "".join(recorded.event.model_dump_json() for recorded in log.read(0, 10))


def test_many_contacts_go_in_several_requests(sendgrid: SendGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contacts, "_MOST", 4)
    monkeypatch.setattr(contacts, "_MOST_BYTES", 200)
    people = [Contact(email=f"{number}@example.com") for number in range(10)]
    big = [Contact(email=f"big-{number}@example.com", city="x" * 60) for number in range(2)]
    jobs = sendgrid.contacts.upsert(iter([*people, *big]))
    assert [job.created for job in jobs] == [4, 4, 3, 1]
    emails = [person["email"] for person in people]
    monkeypatch.setattr(contacts, "_IDS", 3)
    found = sendgrid.contacts.find(emails)
    assert [*found] == emails
    assert [job.deleted for job in sendgrid.contacts.remove(one["id"] for one in found.values())] == [3, 3, 3, 1]


def test_a_job_that_could_not_take_all_says_how_many(sendgrid: SendGrid) -> None:
    (job,) = sendgrid.contacts.upsert([ADA, Contact(email="refused@example.com")])
    assert (job.status, job.created, job.errored) == ("errored", 1, 1)
    assert job.errors_url
    assert "signature" not in repr(job)


def test_a_job_that_failed_is_an_error(sendgrid: SendGrid) -> None:
    with pytest.raises(SendGridIntegrationError, match="none of 1 contacts was taken") as error:
        sendgrid.contacts.upsert([Contact(email="failing@example.com")])
    assert (error.value.code, error.value.retryable) == (JOB_FAILED, False)


def test_a_job_is_not_followed_for_ever(served: Running) -> None:
    with pytest.raises(SendGridIntegrationError, match=r"is not done after 0 s\n.*contacts\.follow") as error:
        client(served.sendgrid_base, job_timeout=0.05).contacts.upsert([Contact(email="stuck@example.com")])
    assert error.value.code == JOB_PENDING


def test_a_job_is_followed_over_troubles_on_the_way(web: Web) -> None:
    done = Reply({"id": "j1", "status": "completed", "results": {"requested_count": 1, "updated_count": 1}})
    pending, busy = Reply({"id": "j1", "status": "pending"}), Reply({"errors": []}, 503)
    web.replies([Reply({"job_id": "j1"}, 202), pending, busy, pending, Reply(b"<html>", 502), done])
    (job,) = client(web.url).contacts.upsert([ADA])
    assert (job.status, job.updated, len(web.asked)) == ("completed", 1, 6)


def test_a_wrong_contact_is_refused_without_its_address(sendgrid: SendGrid) -> None:
    with pytest.raises(SendGridIntegrationError, match=r"400 email address is invalid \(contacts\[0\].email\)"):
        sendgrid.contacts.upsert([Contact(email="ada")])
    with pytest.raises(SendGridIntegrationError, match="not one that the sandbox understands"):
        sendgrid.contacts.search("age > 7")


# --- suppressions -----------------------------------------------------------------------------------------------


def listed(sendgrid: SendGrid, suppression: str) -> list[str]:
    return [each["email"] for each in sendgrid.suppressions.list(suppression)]


def test_who_unsubscribed_is_listed_and_can_come_back(served: Running, log: EventLog) -> None:
    sendgrid = client(served.sendgrid_base, events=log)
    sendgrid.suppressions.add("unsubscribes", ["ada@example.com", "bob+x@example.com"])
    assert listed(sendgrid, "unsubscribes") == ["ada@example.com", "bob+x@example.com"]
    sendgrid.suppressions.remove("unsubscribes", ["bob+x@example.com"])
    assert listed(sendgrid, "unsubscribes") == ["ada@example.com"]
    assert kinds(log) == ["suppression.added", "suppression.removed"]
    assert "@" not in "".join(recorded.event.model_dump_json() for recorded in log.read(0, 10))


def test_who_left_a_group_is_listed_and_can_come_back(sendgrid: SendGrid) -> None:
    group = sendgrid.sdk.client.asm.groups.post(request_body={"name": "News", "description": "Weekly"}).to_dict["id"]
    sendgrid.suppressions.add(f"group:{group}", ["ada@example.com"])
    assert listed(sendgrid, f"group:{group}") == ["ada@example.com"]
    sendgrid.suppressions.remove(f"group:{group}", ["ada@example.com"])
    assert listed(sendgrid, f"group:{group}") == []


@pytest.mark.parametrize(
    ("address", "suppression"),
    [("bounce@example.com", "bounces"), ("block@example.com", "blocks"), ("spam@example.com", "spam_reports")],
)
def test_whom_mail_does_not_reach_is_listed_until_removed(sendgrid: SendGrid, address: str, suppression: str) -> None:
    sendgrid.mail.send(type(WELCOME)("shop@example.com", (address,), "Hi", "Hello"), operation_id="hi-1")
    assert listed(sendgrid, suppression) == [address]
    sendgrid.suppressions.remove(suppression, [address])
    assert listed(sendgrid, suppression) == []


def test_a_long_list_is_read_page_by_page_and_by_time(
    served: Running, sendgrid: SendGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressions, "_PAGE", 2)
    moments = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 6)]
    for moment in moments:
        with served.sandbox.clock.at(int(moment.timestamp())):
            sendgrid.suppressions.add("unsubscribes", [f"{moment.day}@example.com"])
    assert len(listed(sendgrid, "unsubscribes")) == 5
    between = sendgrid.suppressions.list("unsubscribes", since=moments[1], until=moments[3])
    assert [each["email"] for each in between] == ["2@example.com", "3@example.com", "4@example.com"]


@pytest.mark.parametrize(
    ("suppression", "hint"),
    [("bounces", "can be added to unsubscribes and to groups only"), ("group:news", "can be added to")],
)
def test_sendgrids_own_lists_are_not_added_to(served: Running, sendgrid: SendGrid, suppression: str, hint: str) -> None:
    with pytest.raises(SendGridIntegrationError, match=hint):
        sendgrid.suppressions.add(suppression, ["ada@example.com"])
    assert tries(served) == 0


def test_a_list_that_there_is_not_is_refused_before_anything_is_asked(served: Running, sendgrid: SendGrid) -> None:
    with pytest.raises(SendGridIntegrationError, match="there are bounces, blocks"):
        list(sendgrid.suppressions.list("bouncers"))
    with pytest.raises(SendGridIntegrationError, match="there are bounces, blocks"):
        sendgrid.suppressions.remove("bouncers", ["ada@example.com"])
    assert tries(served) == 0


def test_a_change_of_a_list_is_repeated_until_it_works(served: Running, sendgrid: SendGrid) -> None:
    served.sandbox.wire.misbehave(Misbehaviour(service="sendgrid", kind="error", calls=TRIES - 1, done=True))
    sendgrid.suppressions.add("unsubscribes", ["ada@example.com"])
    assert tries(served) == TRIES
    assert listed(sendgrid, "unsubscribes") == ["ada@example.com"]

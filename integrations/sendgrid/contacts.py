"""The contacts of SendGrid's Marketing Campaigns. Changes are jobs: SendGrid takes them now and does them later."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast
from urllib.parse import quote

from integrations.sendgrid.client import Client, batched
from integrations.sendgrid.errors import SendGridIntegrationError

JOB_PENDING = "job_pending"
"""SendGrid has not finished a job in the time that it was followed."""
JOB_FAILED = "job_failed"
"""SendGrid could do nothing of a job."""

_MOST, _MOST_BYTES = 30_000, 5_500_000
"""Of one request; SendGrid takes 6 MB."""
_IDS = 100
_LONGEST_WAIT = 30.0


class Contact(TypedDict, total=False):
    """A contact, in SendGrid's words (https://www.twilio.com/docs/sendgrid/api-reference/contacts).

    `id`, `created_at` and `updated_at` are SendGrid's own; `custom_fields` go by the fields' ids when they are written.
    """

    id: str
    email: str
    first_name: str
    last_name: str
    phone_number: str
    external_id: str
    address_line_1: str
    address_line_2: str
    city: str
    state_province_region: str
    postal_code: str
    country: str
    custom_fields: Mapping[str, str | int | float]
    list_ids: list[str]
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class Job:
    """What became of a job.

    Args:
        id: SendGrid's id of it.
        status: Where it stands; `errored`: some contacts could not be taken.
        requested: Contacts that it was for.
        created: Contacts that are new.
        updated: Contacts that were there.
        deleted: Contacts that are gone.
        errored: Contacts that could not be taken.
        errors_url: Where SendGrid says why, for who may read it: a file to download.
    """

    id: str
    status: Literal["pending", "completed", "errored", "failed"]
    requested: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    errored: int = 0
    errors_url: str | None = field(default=None, repr=False)


class Contacts:
    """SendGrid's contacts. Methods raise `SendGridIntegrationError` if SendGrid refuses or cannot be reached."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def upsert(self, contacts: Iterable[Contact], *, list_ids: Sequence[str] = ()) -> list[Job]:
        """Adds contacts, and updates those whose address is there already; waits until SendGrid has done it.

        Args:
            contacts: The contacts, each with its `email`; what is not said of one stays. However many: they are sent
                30,000 or 5.5 MB at a time.
            list_ids: Lists that all of them are to be on.

        Returns:
            One job a request; look at `errored`.

        Raises:
            SendGridIntegrationError: As for all methods; or a job failed (`code` is `job_failed`), or is not done
                within `job_timeout` (`job_pending`: `follow` goes on).
        """
        lists = {"list_ids": [*list_ids]} if list_ids else {}
        ids = [self._put({**lists, "contacts": some}) for some in _portions(contacts)]
        return [self._done(id_, "contacts.upserted") for id_ in ids]

    def remove(self, ids: Iterable[str]) -> list[Job]:
        """Removes contacts from all lists; waits until SendGrid has done it.

        Args:
            ids: SendGrid's ids of them; `find` knows them by address.

        Returns:
            One job a hundred.

        Raises:
            SendGridIntegrationError: As for `upsert`.
        """
        jobs = [self._delete(some) for some in batched(ids, _IDS)]
        return [self._done(id_, "contacts.removed") for id_ in jobs]

    def find(self, emails: Iterable[str]) -> dict[str, Contact]:
        """The contacts with these addresses.

        Args:
            emails: Addresses, in any case.

        Returns:
            Address in lower case -> contact; without the addresses that no contact has.
        """
        found: dict[str, Contact] = {}
        for some in batched(emails, _IDS):
            told = self._find(some)
            found |= {email.lower(): each["contact"] for email, each in told.items() if "contact" in each}
        return found

    def search(self, query: str) -> list[Contact]:
        """The first 50 contacts that fit.

        Args:
            query: In SendGrid's query language: `city LIKE 'Ber%' AND CONTAINS(list_ids, '...')`.
        """
        told = self._client.ask(
            "contacts.search", "post", "marketing/contacts/search", body={"query": query}, holds="result"
        ).data
        return cast(list[Contact], told["result"])

    def follow(self, job_id: str) -> Job:
        """Waits until a job is done, for `job_timeout` at most.

        Args:
            job_id: The job's id, from the error of an `upsert` or `remove` that took too long.

        Raises:
            SendGridIntegrationError: As for `upsert`.
        """
        wait, until = self._client.config.job_wait, time.monotonic() + self._client.config.job_timeout
        while (job := self._job(job_id)).status not in {"completed", "errored", "failed"}:
            left = until - time.monotonic()
            if left <= 0:
                raise _pending(job_id, self._client.config.job_timeout)
            time.sleep(min(wait, left))
            wait = min(_LONGEST_WAIT, wait * 2)
        if job.status == "failed":
            raise _failed(job)
        return job

    def _put(self, body: Mapping[str, Any]) -> str:
        return str(
            self._client.ask("contacts.upsert", "put", "marketing/contacts", body=body, holds="job_id").data["job_id"]
        )

    def _delete(self, ids: Sequence[str]) -> str:
        asked = {"ids": ",".join(ids)}
        return str(
            self._client.ask("contacts.remove", "delete", "marketing/contacts", query=asked, holds="job_id").data[
                "job_id"
            ]
        )

    def _find(self, emails: Sequence[str]) -> Mapping[str, Any]:
        path = "marketing/contacts/search/emails"
        try:
            told = self._client.ask("contacts.find", "post", path, body={"emails": [*emails]}, holds="result").data
        except SendGridIntegrationError as error:
            if error.status != 404:  # it is how SendGrid says that it knows none of them
                raise
            return {}
        return cast(Mapping[str, Any], told["result"])

    def _job(self, id_: str) -> Job:
        path = f"marketing/contacts/imports/{quote(id_, safe='')}"
        told = self._client.ask("contacts.follow", "get", path, holds="status").data
        results = told.get("results") or {}
        counts = {name: int(results.get(f"{name}_count") or 0) for name in _COUNTS}
        return Job(id_, told["status"], **counts, errors_url=results.get("errors_url") or None)

    def _done(self, id_: str, told: str) -> Job:
        job = self.follow(id_)
        self._client.tell(told, ("contacts_job", id_), {name: getattr(job, name) for name in _COUNTS}, key=id_)
        return job


_COUNTS = ("requested", "created", "updated", "deleted", "errored")


def _portions(contacts: Iterable[Contact]) -> Iterator[list[Contact]]:
    portion: list[Contact] = []
    size = 0
    for contact in contacts:
        its = len(json.dumps(contact, default=str)) + 2
        if portion and (len(portion) == _MOST or size + its > _MOST_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(contact)
        size += its
    if portion:
        yield portion


def _pending(job_id: str, seconds: float) -> SendGridIntegrationError:
    return SendGridIntegrationError(
        f"SendGrid contacts.follow: job {job_id} is not done after {seconds:.0f} s",
        operation="contacts.follow",
        code=JOB_PENDING,
        hint="SendGrid goes on with it: follow it later, contacts.follow(job_id)",
    )


def _failed(job: Job) -> SendGridIntegrationError:
    return SendGridIntegrationError(
        f"SendGrid contacts.follow: job {job.id} failed: none of {job.requested} contacts was taken",
        operation="contacts.follow",
        code=JOB_FAILED,
        hint="SendGrid's Marketing Campaigns shows why, under Contacts",
    )

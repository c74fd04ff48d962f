"""How many objects are deleted: a thousand in a call, and what S3 refuses told for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from integrations.s3.client import Client, address
from integrations.s3.errors import mistake

_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that was not deleted.

    Args:
        url: The object.
        code: S3's name of the failure: `AccessDenied`.
        message: S3's words.
    """

    url: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """How the deletion of many objects ended.

    Args:
        deleted: Those that are not there any more, or never were.
        refused: The others.
    """

    deleted: tuple[str, ...]
    refused: tuple[Refused, ...]


def delete_each(client: Client, urls: Iterable[str]) -> Iterator[Deleted]:
    """Deletes objects, and tells of each call how it ended.

    Raises:
        S3IntegrationError: A call was refused as a whole, or S3 could not be reached within the budget.
    """
    for bucket, keys in _batches(urls):
        url = f"s3://{bucket}"
        asked = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        errors = client.call_bucket("delete_objects", url, Delete=asked).get("Errors", ())
        refused = {error["Key"]: error for error in errors}
        deleted = tuple(f"{url}/{key}" for key in keys if key not in refused)
        client.tell_all("file.deleted", deleted)
        yield Deleted(
            deleted,
            tuple(
                Refused(f"{url}/{key}", error.get("Code", ""), error.get("Message", ""))
                for key, error in refused.items()
            ),
        )


def _batches(urls: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Buckets, each with as many keys as a call may name."""
    waiting: dict[str, list[str]] = {}
    for url in urls:
        bucket, key = address("delete_objects", url)
        if not key:
            raise mistake("delete_objects", f"{url}: is a bucket", f"name the objects in it: s3://{bucket}/key")
        keys = waiting.setdefault(bucket, [])
        keys.append(key)
        if len(keys) == _AT_ONCE:
            yield bucket, waiting.pop(bucket)
    yield from waiting.items()

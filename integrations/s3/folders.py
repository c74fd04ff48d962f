"""S3's folders: what keys begin with, up to a `/`; an empty object of that name shows one that has nothing in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from integrations.s3.client import Client, address
from integrations.s3.deleting import Refused, delete_each
from integrations.s3.errors import S3IntegrationError, mistake
from integrations.s3.objects import Objects

_PAGE = 1000


class Folders:
    """Folders, each by its address, `s3://bucket/folder/`.

    Every method raises `S3IntegrationError` if S3 refuses or cannot be reached within the budget.
    """

    def __init__(self, client: Client, objects: Objects) -> None:
        self._client, self._objects = client, objects

    def create(self, url: str) -> str:
        """Makes an empty folder; one that is there stays as it is. Objects need none.

        Args:
            url: `s3://bucket/folder/`, with or without the last `/`.

        Returns:
            Its address, with it.
        """
        folder = _folder("put_object", url)
        self._client.call("put_object", folder, Body=b"", ContentType="application/x-directory")
        self._client.tell("folder.created", folder, {})
        return folder

    def delete(self, url: str) -> int:
        """Deletes a folder and everything in it; one that is not there is deleted.

        Args:
            url: `s3://bucket/folder/`, with or without the last `/`.

        Returns:
            How many objects were deleted.

        Raises:
            S3IntegrationError: S3 refuses to delete some of them; those before are deleted.
        """
        folder = _folder("delete_objects", url)
        deleted = 0
        for batch in delete_each(self._client, (found.url for found in self._objects.list(folder))):
            if batch.refused:
                raise _not_deleted(folder, batch.refused)
            deleted += len(batch.deleted)
        self._client.tell("folder.deleted", folder, {"objects": deleted})
        return deleted

    def list(self, url: str) -> Iterator[str]:
        """The folders that are directly in one, sorted, page by page.

        Args:
            url: `s3://bucket`, `s3://bucket/folder`.
        """
        bucket, key = address("list_objects_v2", url)
        within, cursor = f"s3://{bucket}/{key.rstrip('/')}/" if key else f"s3://{bucket}", None
        while True:
            page = self._objects.page(within, delimiter="/", most=_PAGE, cursor=cursor)
            yield from page.folders
            cursor = page.cursor
            if cursor is None:
                return


def _folder(operation: str, url: str) -> str:
    bucket, key = address(operation, url)
    if not key.strip("/"):
        raise mistake(operation, f"{url}: is a bucket", f"name a folder in it: s3://{bucket}/folder/")
    return f"s3://{bucket}/{key.rstrip('/')}/"


def _not_deleted(folder: str, refused: Sequence[Refused]) -> S3IntegrationError:
    first, others = refused[0], f", nor are {len(refused) - 1} others" if refused[1:] else ""
    return S3IntegrationError(
        f"{folder}: {first.url} is not deleted: {first.message} ({first.code}){others}",
        service="s3",
        operation="delete_objects",
        code=first.code,
        hint="the credentials need s3:DeleteObject there; delete the folder again then",
        retryable=first.code in {"InternalError", "SlowDown"},
    )

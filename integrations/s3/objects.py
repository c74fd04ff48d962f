"""S3's objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Unpack

from errors import PivotalError
from integrations.files import written
from integrations.parallel import in_order
from integrations.s3.client import Client, address
from integrations.s3.copying import Copy, copy
from integrations.s3.deleting import Deleted, delete_each
from integrations.s3.downloading import ObjectInfo, look, pieces, whole
from integrations.s3.errors import mistake
from integrations.s3.uploading import Data, Storage, Stored, upload


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a listing.

    Args:
        url: `s3://bucket/key`.
        size: Bytes.
        etag: Its version.
        modified: When it was stored.
    """

    url: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing.

    Args:
        objects: The objects, sorted by key.
        folders: Where a delimiter was given: what the other addresses begin with, up to the delimiter.
        cursor: Where the next page begins; None at the end.
    """

    objects: tuple[Listed, ...]
    folders: tuple[str, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Upload:
    """How one upload of many ended.

    Args:
        url: Where it went.
        stored: What was stored; None if it was not.
        error: Why not.
    """

    url: str
    stored: Stored | None = None
    error: PivotalError | OSError | None = None


class Objects:
    """Objects, each by its address, `s3://bucket/key`.

    Every method raises `S3IntegrationError` if S3 refuses or cannot be reached within the budget.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def upload(self, url: str, data: Data, **options: Unpack[Storage]) -> Stored:
        """Stores an object. S3 checks by CRC-32 that it has got the bytes that were sent.

        What is larger than a part goes in parts; the object is there once it is whole, and if that does not come,
        the parts are deleted. No more than `at_once` parts are ever in memory.

        Args:
            url: Where it goes; what is there is replaced.
            data: Bytes, a file's path, or a stream that can be read.
            options: See `Storage`.

        Raises:
            S3IntegrationError: A condition does not hold (`PreconditionFailed`), or as for every method.
            OSError: The data cannot be read.
        """
        return upload(self._client, url, data, options)

    def upload_many(self, items: Iterable[tuple[str, Data]], **options: Unpack[Storage]) -> tuple[Upload, ...]:
        """Stores many objects, some of them at the same time. One that fails does not keep the others.

        Args:
            items: Address and data of each; taken as they are needed.
            options: Of all of them; an `operation_id` is of each of them with its address.

        Returns:
            How each one ended, in their order.
        """

        def one(item: tuple[str, Data]) -> Upload:
            url, data = item
            own: Storage = {**options}
            if "operation_id" in options:
                own["operation_id"] = f"{options['operation_id']} {url}"
            try:
                return Upload(url, upload(self._client, url, data, own))
            except (PivotalError, OSError) as error:
                return Upload(url, error=error)

        return tuple(in_order(one, items, self._client.config.at_once))

    def read(self, url: str, start: int = 0, size: int | None = None) -> bytes:
        """The bytes of an object, or of a range of it, in memory. An object's are checked by its checksum.

        Args:
            url: The object.
            start: The first byte, from 0.
            size: How many, at most; to the end if not given.
        """
        params = {} if start == 0 and size is None else {"Range": _range(url, start, size)}
        answer = self._client.call("get_object", url, **params)
        content: bytes = answer["Body"]
        self._client.tell("file.downloaded", url, {"size": len(content), "etag": answer["ETag"]})
        return content

    def stream(self, url: str, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        """The bytes of an object, or of a range of it, piece by piece, all of one version of it.

        A piece that breaks off is asked for again; the others are not. The whole object is checked by its checksum
        at the end, where it has one of CRC-32, SHA-1, SHA-256, or an ETag that is its MD5.

        Args:
            url: The object.
            start: The first byte, from 0.
            size: How many, at most; to the end if not given.

        Raises:
            S3IntegrationError: The object was replaced meanwhile (`PreconditionFailed`), its checksum differs
                (`ChecksumMismatch`), or as for every method.
        """
        _range(url, start, size)
        info = look(self._client, url)
        end = info.size if size is None else min(info.size, start + size)
        yield from whole(self._client, info) if end - start == info.size else pieces(self._client, info, start, end)
        self._client.tell("file.downloaded", url, {"size": max(0, end - start), "etag": info.etag})

    def download(self, url: str, to: Path) -> ObjectInfo:
        """Writes an object into a file. The file is there once it is whole and checked; see `stream`.

        Args:
            url: The object.
            to: The file; what is there is replaced.

        Raises:
            S3IntegrationError: As for `stream`.
            OSError: The file cannot be written.
        """
        info = look(self._client, url)
        with written(to) as file:
            for piece in whole(self._client, info):
                file.write(piece)
        self._client.tell("file.downloaded", url, {"size": info.size, "etag": info.etag})
        return info

    def info(self, url: str) -> ObjectInfo:
        """What S3 knows of an object."""
        return look(self._client, url)

    def copy(self, source: str, target: str, **options: Unpack[Copy]) -> Stored:
        """Copies an object within S3, with its type, metadata and tags; above 5 GB in parts.

        Args:
            source: The object.
            target: Where it goes; what is there is replaced.
            options: See `Copy`.

        Raises:
            S3IntegrationError: The source was replaced meanwhile (`PreconditionFailed`), or as for every method.
        """
        return copy(self._client, source, target, options)

    def delete(self, url: str) -> None:
        """Deletes an object; one that is not there is deleted."""
        self._client.call("delete_object", url)
        self._client.tell("file.deleted", url, {})

    def delete_many(self, urls: Iterable[str]) -> Deleted:
        """Deletes objects, a thousand in a call; what S3 refuses to delete does not keep the others.

        Raises:
            S3IntegrationError: A call was refused as a whole, or as for every method. It can be made again as it is.
        """
        ended = list(delete_each(self._client, urls))
        return Deleted(
            tuple(url for batch in ended for url in batch.deleted),
            tuple(refused for batch in ended for refused in batch.refused),
        )

    def list(self, url: str, *, most: int | None = None) -> Iterator[Listed]:
        """The objects whose addresses begin with one, sorted by key, page by page.

        Args:
            url: `s3://bucket`, `s3://bucket/prefix`.
            most: How many, at most; all if not given.
        """
        left, cursor = most, None
        while left is None or left > 0:
            page = self.page(url, most=min(left or 1000, 1000), cursor=cursor)
            yield from page.objects
            left, cursor = left and left - len(page.objects), page.cursor
            if cursor is None:
                return

    def page(self, url: str, *, most: int = 1000, delimiter: str | None = None, cursor: str | None = None) -> Page:
        """A page of such a listing.

        Args:
            url: `s3://bucket`, `s3://bucket/prefix`.
            most: How many objects and folders, at most; S3 gives no more than 1,000.
            delimiter: `/` leaves out what is in folders, and lists those.
            cursor: Of the page before.
        """
        bucket, prefix = address("list_objects_v2", url)
        asked = {"MaxKeys": most, "Delimiter": delimiter, "ContinuationToken": cursor}
        params = {name: value for name, value in asked.items() if value is not None}
        answer = self._client.call_bucket("list_objects_v2", url, Prefix=prefix, **params)
        found = [
            Listed(f"s3://{bucket}/{one['Key']}", one["Size"], one["ETag"], one["LastModified"])
            for one in answer.get("Contents", ())
        ]
        folders = [f"s3://{bucket}/{one['Prefix']}" for one in answer.get("CommonPrefixes", ())]
        return Page(tuple(found), tuple(folders), answer.get("NextContinuationToken"))


def _range(url: str, start: int, size: int | None) -> str:
    if start < 0 or (size is not None and size < 1):
        raise mistake("get_object", f"{url}: no range: start {start}, size {size}", "start from 0, with 1 byte or more")
    return f"bytes={start}-{'' if size is None else start + size - 1}"

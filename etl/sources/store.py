"""Objects in S3 as files: found by key or glob, read in ranges, each in the one version that was found."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from errors import SourceError
from etl.sources.disk import told
from integrations.s3 import ObjectReader, open_client, s3_errors, split_url


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object (`etl.sources.disk.File`).

    Args:
        name: Its address: `s3://bucket/key`.
        version: Its size (bytes) and its ETag.
        client: What reads it.
    """

    name: str
    version: tuple[int, str]
    client: Any = field(repr=False, compare=False)

    def open(self) -> ObjectReader:
        """Its bytes; each request says which ETag it wants."""
        return ObjectReader(self.client, self.name, *self.version)

    def check_unchanged(self) -> None:
        """Reading it has proved it."""


def find_objects(url: str) -> list[StoredFile]:
    """The objects of an address, or of a glob after the bucket's name, sorted by key; `**` goes into folders.

    Raises:
        SourceError: The bucket cannot be listed, or an address without a wildcard leads to no object.
    """
    with told(url):
        return _find(url)


def _find(url: str) -> list[StoredFile]:
    client = open_client()
    bucket, key = _address(url)
    if not glob.has_magic(key):
        return [_only(client, bucket, key, url)]
    pattern = key.split("/")
    prefix = re.split(r"[*?\[]", key)[0]
    return [
        _file(client, bucket, found)
        for found in _listed(client, bucket, prefix, url)
        if not found["Key"].endswith("/") and _matches(found["Key"].split("/"), pattern)
    ]


def _address(url: str) -> tuple[str, str]:
    try:
        bucket, key = split_url(url)
    except ValueError as error:
        raise SourceError(str(error)) from None
    if not key:
        raise SourceError(f"{url}: is a bucket", hint=f"name the objects in it: s3://{bucket}/folder/*.csv")
    return bucket, key


def _only(client: Any, bucket: str, key: str, url: str) -> StoredFile:  # noqa: ANN401  (boto3's)
    found = next(_listed(client, bucket, key, url), {"Key": ""})  # no other key with this prefix sorts before it
    if found["Key"] == key:
        return _file(client, bucket, found)
    if found["Key"].startswith(key.rstrip("/") + "/"):
        raise SourceError(f"{url}: is a folder", hint=f"name the objects in it: {url.rstrip('/')}/*.csv")
    raise SourceError(f"{url}: there is no such object", hint="check the key; capital letters count")


def _listed(client: Any, bucket: str, prefix: str, url: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401  (boto3's)
    with s3_errors("list", url):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            yield from page.get("Contents", [])


def _file(client: Any, bucket: str, found: dict[str, Any]) -> StoredFile:  # noqa: ANN401  (boto3's)
    return StoredFile(f"s3://{bucket}/{found['Key']}", (found["Size"], found["ETag"]), client)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a key match those of a glob: `*` stays within a part, `**` is any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:] or ["*"]) for start in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])

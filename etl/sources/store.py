"""Objects in S3 as files: found by key or glob, read in ranges, each in the one version that was found."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from errors import SourceError
from etl.sources.disk import told
from integrations.s3 import S3, Listed, ObjectReader, open_s3, split_url


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
    client: S3 = field(repr=False, compare=False)

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
    s3 = open_s3()
    bucket, key = _address(url)
    if not glob.has_magic(key):
        return [_only(s3, url)]
    root = f"s3://{bucket}/"
    pattern = key.split("/")
    return [
        _file(s3, found)
        for found in s3.objects.list(root + re.split(r"[*?\[]", key)[0])
        if not found.url.endswith("/") and _matches(found.url.removeprefix(root).split("/"), pattern)
    ]


def _address(url: str) -> tuple[str, str]:
    try:
        bucket, key = split_url(url)
    except ValueError as error:
        raise SourceError(str(error)) from None
    if not key:
        raise SourceError(f"{url}: is a bucket", hint=f"name the objects in it: s3://{bucket}/folder/*.csv")
    return bucket, key


def _only(s3: S3, url: str) -> StoredFile:
    found = next(s3.objects.list(url, most=1), None)  # no other key with this prefix sorts before it
    if found is not None and found.url == url:
        return _file(s3, found)
    if found is not None and found.url.startswith(url.rstrip("/") + "/"):
        raise SourceError(f"{url}: is a folder", hint=f"name the objects in it: {url.rstrip('/')}/*.csv")
    raise SourceError(f"{url}: there is no such object", hint="check the key; capital letters count")


def _file(s3: S3, found: Listed) -> StoredFile:
    return StoredFile(found.url, (found.size, found.etag), s3)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a key match those of a glob: `*` stays within a part, `**` is any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:] or ["*"]) for start in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])

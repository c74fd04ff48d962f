"""How objects get out of S3: range by range, each of the one version that was found, and checked at the end."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from integrations.parallel import in_order
from integrations.s3.client import Client
from integrations.s3.errors import DAMAGED, MISMATCH, S3IntegrationError, mistake


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What S3 knows of an object.

    Args:
        url: `s3://bucket/key`.
        size: Bytes.
        etag: Its version.
        modified: When it was stored.
        content_type: Its type.
        metadata: Names, in small letters, and values.
        encryption: `AES256`, `aws:kms`, ...; None if the store does not say.
        kms_key_id: The key of `aws:kms`.
        storage_class: `STANDARD`, `GLACIER`, ...
        checksums: Algorithm -> checksum of the whole object, in base64.
    """

    url: str
    size: int
    etag: str
    modified: datetime
    content_type: str
    metadata: Mapping[str, str]
    encryption: str | None
    kms_key_id: str | None
    storage_class: str
    checksums: Mapping[str, str]


def look(client: Client, url: str) -> ObjectInfo:
    """What S3 knows of an object; see `Objects.info`."""
    head = client.call("head_object", url, ChecksumMode="ENABLED")
    whole = head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return ObjectInfo(
        url,
        head["ContentLength"],
        head["ETag"],
        head["LastModified"],
        head.get("ContentType", "binary/octet-stream"),
        head.get("Metadata", {}),
        head.get("ServerSideEncryption"),
        head.get("SSEKMSKeyId"),
        head.get("StorageClass", "STANDARD"),
        {name: head[f"Checksum{name}"] for name in _CHECKSUMS if whole and f"Checksum{name}" in head},
    )


def fetch(client: Client, url: str, etag: str, start: int, end: int) -> bytes:
    """The bytes from `start` to before `end` of one version of an object.

    Raises:
        S3IntegrationError: They did not come; the object has another version (`PreconditionFailed`).
    """
    answer = client.call("get_object", url, Range=f"bytes={start}-{end - 1}", IfMatch=etag)
    content: bytes = answer["Body"]
    if len(content) != end - start:
        advice = "the store does not keep to ranges: check PIVOTAL_S3_ENDPOINT_URL"
        raise mistake("get_object", f"{url}: {len(content)} bytes instead of {end - start}", advice)
    return content


def whole(client: Client, info: ObjectInfo) -> Iterator[bytes]:
    """All of an object, piece by piece, the next ones already on their way; checked at the end.

    Raises:
        S3IntegrationError: As for `fetch`; or the bytes are not those of the object.
    """
    check = _Check(info)
    for piece in pieces(client, info, 0, info.size):
        check.add(piece)
        yield piece
    check.finish()


def pieces(client: Client, info: ObjectInfo, start: int, end: int) -> Iterator[bytes]:
    """A range of an object, piece by piece, the next ones already on their way.

    Raises:
        S3IntegrationError: As for `fetch`.
    """
    step = client.config.part_size
    spans = ((at, min(at + step, end)) for at in range(start, end, step))
    return in_order(lambda span: fetch(client, info.url, info.etag, *span), spans, client.config.at_once)


class _Crc32:
    """CRC-32, as hashlib would have it."""

    def __init__(self) -> None:
        self._crc = 0

    def update(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)

    def digest(self) -> bytes:
        return self._crc.to_bytes(4)


_CHECKSUMS: Mapping[str, Any] = {"CRC32": _Crc32, "SHA256": hashlib.sha256, "SHA1": hashlib.sha1}


class _Check:
    """Whether the bytes are those of the object: by a checksum or, if it has none, by an ETag that is MD5."""

    def __init__(self, info: ObjectInfo) -> None:
        self._url = info.url
        self._expected, self._hash = "", None
        for name, expected in info.checksums.items():
            self._expected, self._hash = expected, _CHECKSUMS[name]()
            return
        plain = info.encryption in {None, "AES256"}
        if plain and re.fullmatch('"[0-9a-f]{32}"', info.etag):
            self._expected = base64.b64encode(bytes.fromhex(info.etag.strip('"'))).decode()
            self._hash = hashlib.md5(usedforsecurity=False)

    def add(self, piece: bytes) -> None:
        if self._hash is not None:
            self._hash.update(piece)

    def finish(self) -> None:
        if self._hash is None or base64.b64encode(self._hash.digest()).decode() == self._expected:
            return
        raise S3IntegrationError(
            f"{self._url}: the bytes that came are not those of the object: their checksum differs",
            service="s3",
            operation="get_object",
            code=MISMATCH,
            hint=DAMAGED,
            retryable=True,
        )

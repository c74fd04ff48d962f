"""How objects get into S3: in one request, or in parts that become an object at the very end."""

from __future__ import annotations

import base64
import io
import logging
import mimetypes
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypedDict
from urllib.parse import urlencode

from integrations.calls import idempotency_key
from integrations.parallel import in_order
from integrations.s3.client import Client, address
from integrations.s3.errors import S3IntegrationError, mistake

_log = logging.getLogger(__name__)

_PARTS_AT_MOST = 10_000
_MARK = "pivotal-operation"
"""Metadata that tells the object of one doing from that of another."""


class Readable(Protocol):
    """A stream of bytes, of which the end need not be known."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size` of them; none at the end."""
        ...


Data = bytes | Path | Readable


class Encryption(TypedDict, total=False):
    """How S3 encrypts an object; as the bucket says, if not given.

    Args:
        encryption: `AES256` for S3's own keys, `aws:kms` for those of KMS.
        kms_key_id: The key, with `aws:kms`; that of the account if not given.
    """

    encryption: Literal["AES256", "aws:kms"]
    kms_key_id: str


class Storage(Encryption, total=False):
    """How an object is stored.

    Args:
        content_type: Its type; guessed from the key if not given.
        metadata: Names and values, ASCII, 2 KB at most; names come back in small letters.
        tags: At most 10.
        if_none_match: Only if there is no such object yet.
        if_match: Only if the object that is there has this ETag.
        operation_id: The caller's own name of this one doing: it is told once, however often it is run again; and with
            a condition, what an earlier try of the same doing has stored is no obstacle. The object has its key as
            metadata, `pivotal-operation`, as has every one that is stored under a condition.
    """

    content_type: str
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    if_none_match: bool
    if_match: str
    operation_id: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that was stored.

    Args:
        url: `s3://bucket/key`.
        etag: Its version.
        size: Bytes.
    """

    url: str
    etag: str
    size: int


class Multipart:
    """An object that is uploaded in parts, from several threads at once if need be; nobody sees it before `complete`.

    As a context manager, it forgets what was sent if the block fails.

    Args:
        client: The way to S3.
        url: `s3://bucket/key`.
        stored: How it is stored, in S3's words.

    Raises:
        S3IntegrationError: S3 does not take it.
    """

    def __init__(self, client: Client, url: str, **stored: object) -> None:
        self._client, self._url = client, url
        kind = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
        self._id = client.call("create_multipart_upload", url, **kind, **stored)["UploadId"]
        self._parts: dict[int, Mapping[str, object]] = {}

    def send(self, part: tuple[int, bytes]) -> None:
        """Uploads a part.

        Args:
            part: Its number, from 1, and its bytes: 5 MB at least, unless it is the last one.
        """
        number, content = part
        self._keep(number, self._call("upload_part", PartNumber=number, Body=content, **_checked(zlib.crc32(content))))

    def copy(self, number: int, **source: object) -> None:
        """Makes a part of a range of another object.

        Args:
            number: Its number, from 1.
            source: `CopySource`, ... in S3's words.
        """
        self._keep(number, self._call("upload_part_copy", PartNumber=number, **source)["CopyPartResult"])

    def complete(self, crc: int | None = None, **condition: object) -> Any:  # noqa: ANN401  (boto3's)
        """Shows the object.

        Args:
            crc: CRC-32 of all of it, for S3 to check.
            condition: `IfMatch`, `IfNoneMatch`.

        Raises:
            S3IntegrationError: S3 refused it.
        """
        checked = {} if crc is None else {"ChecksumCRC32": _base64(crc), "ChecksumType": "FULL_OBJECT"}
        parts = {"Parts": [self._parts[number] for number in sorted(self._parts)]}
        return self._call("complete_multipart_upload", MultipartUpload=parts, **checked, **condition)

    def abort(self) -> None:
        """Forgets what was sent; if that fails, it is left to the bucket's own rules, and the log says so."""
        try:
            self._call("abort_multipart_upload")
        except S3IntegrationError as error:
            if error.code != "NoSuchUpload":
                _log.warning("parts of an upload are still there: %s", error.message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort()

    def _call(self, operation: str, **params: object) -> Any:  # noqa: ANN401
        return self._client.call(operation, self._url, UploadId=self._id, **params)

    def _keep(self, number: int, sent: Mapping[str, object]) -> None:
        known = {name: sent[name] for name in ("ETag", "ChecksumCRC32") if name in sent}
        self._parts[number] = {"PartNumber": number, **known}


def upload(client: Client, url: str, data: Data, options: Storage) -> Stored:
    """Stores an object; see `Objects.upload`."""
    conditional = {"if_none_match", "if_match", "operation_id"} & options.keys()
    mark = idempotency_key("s3.upload", options.get("operation_id") or uuid.uuid4().hex) if conditional else None
    stored, condition = _stored(url, options, mark), _condition(url, options)
    with _opened(data) as (stream, known):
        chunks = _Chunks(stream, max(client.config.part_size, -(-known // _PARTS_AT_MOST)))
        try:
            answer = _put(client, url, chunks, stored, condition)
        except S3IntegrationError as error:
            answer = _done_before(client, url, mark, error)
    told = {"size": chunks.size, "etag": answer["ETag"], "content_type": stored["ContentType"]}
    client.tell("file.uploaded", url, told, mark if "operation_id" in options else None)
    return Stored(url, answer["ETag"], chunks.size)


def unfinished(client: Client, url: str) -> Iterator[tuple[str, str]]:
    """Uploads in parts that have begun and have not ended: the object's address, and the upload's id.

    Args:
        client: The way to S3.
        url: What the addresses begin with: `s3://bucket/prefix`.

    Raises:
        S3IntegrationError: S3 refused it, or could not be reached within the budget.
    """
    bucket, prefix = address("list_multipart_uploads", url)
    cursor: dict[str, object] = {}
    while True:
        page = client.call_bucket("list_multipart_uploads", url, Prefix=prefix, **cursor)
        for begun in page.get("Uploads", ()):
            yield f"s3://{bucket}/{begun['Key']}", begun["UploadId"]
        if not page.get("IsTruncated"):
            return
        cursor = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def encrypted(url: str, options: Encryption) -> dict[str, object]:
    """How S3 encrypts an object, in its own words.

    Raises:
        S3IntegrationError: A key without `aws:kms`.
    """
    encryption, key = options.get("encryption"), options.get("kms_key_id")
    if key and encryption != "aws:kms":
        raise mistake("upload", f"{url}: a KMS key without KMS", "say encryption='aws:kms', or leave the key out")
    return _given(ServerSideEncryption=encryption, SSEKMSKeyId=key)


def _put(
    client: Client, url: str, chunks: _Chunks, stored: Mapping[str, object], condition: Mapping[str, object]
) -> Any:  # noqa: ANN401
    first, second = next(chunks, b""), next(chunks, None)
    if second is None:
        return client.call("put_object", url, Body=first, **_checked(chunks.crc), **stored, **condition)
    with Multipart(client, url, **stored) as parts:
        for _ in in_order(parts.send, chunks.numbered(first, second), client.config.at_once):
            pass
        return parts.complete(chunks.crc, **condition)


def _done_before(client: Client, url: str, mark: str | None, error: S3IntegrationError) -> Any:  # noqa: ANN401
    """What an earlier try has stored of which the answer was lost: it is what now stands in the way."""
    if mark is None or error.code not in {"PreconditionFailed", "NoSuchUpload"}:
        raise error
    there = client.call("head_object", url)
    if there["Metadata"].get(_MARK) != mark:
        raise error
    return there


def _stored(url: str, options: Storage, mark: str | None) -> dict[str, object]:
    guessed, packed = mimetypes.guess_type(url.rpartition("/")[2])
    return {
        "ContentType": options.get("content_type") or (None if packed else guessed) or "application/octet-stream",
        **_given(
            Metadata={**options.get("metadata", {}), **({_MARK: mark} if mark else {})},
            Tagging=urlencode(options.get("tags", {})),
        ),
        **encrypted(url, options),
    }


def _condition(url: str, options: Storage) -> dict[str, object]:
    once, etag = options.get("if_none_match"), options.get("if_match")
    if once and etag:
        raise mistake("upload", f"{url}: if_match and if_none_match exclude each other", "give one of them")
    return _given(IfNoneMatch="*" if once else None, IfMatch=etag)


def _given(**params: object) -> dict[str, object]:
    return {name: value for name, value in params.items() if value}


@contextmanager
def _opened(data: Data) -> Iterator[tuple[Readable, int]]:
    """The data as a stream, and its bytes as far as they are known."""
    if isinstance(data, Path):
        with data.open("rb") as file:
            yield file, data.stat().st_size
    elif isinstance(data, bytes):
        yield io.BytesIO(data), len(data)
    else:
        yield data, 0


class _Chunks(Iterator[bytes]):
    """A stream in pieces of one size; how much there was, and its CRC-32, when they are all taken."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream, self._step = stream, size
        self.size = self.crc = 0

    def __next__(self) -> bytes:
        chunk = bytearray()
        while len(chunk) < self._step and (more := self._stream.read(self._step - len(chunk))):
            chunk += more
        if not chunk:
            raise StopIteration
        self.size += len(chunk)
        self.crc = zlib.crc32(chunk, self.crc)
        return bytes(chunk)

    def numbered(self, *taken: bytes) -> Iterable[tuple[int, bytes]]:
        """The pieces, those that were taken first, numbered from 1."""
        yield from enumerate(taken, 1)
        yield from enumerate(self, len(taken) + 1)


def _checked(crc: int) -> dict[str, str]:
    """What has S3 check the bytes: as a header, which every store can read, whatever boto3 is configured to do."""
    return {"ChecksumAlgorithm": "CRC32", "ChecksumCRC32": _base64(crc)}


def _base64(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4)).decode()

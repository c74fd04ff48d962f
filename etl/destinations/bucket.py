"""A prefix of an S3 bucket whose content changes all at once (`etl.destinations.store`).

`_pivotal/manifest.json` names the objects of the current version. Objects never change: a change uploads new ones, with
its own id in their keys, and puts the next manifest, one conditional request that publishes everything. Then it deletes
the objects that the new version does not have.

Whoever reads by the manifest sees one version. Whoever only lists the prefix sees nothing of a load before it is
published: uploads are completed at the very end. While that goes on, and until the old objects are deleted, a listing
shows objects of both versions; after a crash in that moment, it does so until the next run.

A change begins by putting its id into the manifest. So one that began before, and was killed or goes on elsewhere, can
publish no more, since the manifest is not the one that it read; what it left is deleted.
"""

from __future__ import annotations

import hashlib
import io
import logging
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO, TypeVar

import orjson
from filelock import FileLock, Timeout

from errors import DestinationError, IntegrationError
from etl.destinations.disk import disk_errors
from etl.destinations.folder import busy
from etl.destinations.store import Sink
from integrations.s3 import S3, Multipart, open_s3, split_url, unfinished
from settings import get_settings

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_MANIFEST = "_pivotal/manifest.json"
_PART = 8 << 20
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class _Manifest:
    """What `_pivotal/manifest.json` says.

    Args:
        files: Name -> key of the object, for each file of the version.
        writers: The ids of changes that began since the last one was published; their objects are not in `files`.
        obsolete: Keys of objects that were in the version before, and are to be deleted.
        etag: The manifest's own ETag; empty if there is none yet.
    """

    files: dict[str, str]
    writers: tuple[str, ...] = ()
    obsolete: tuple[str, ...] = ()
    etag: str = ""


class Bucket:
    """A prefix of a bucket (`Store`).

    Args:
        url: `s3://bucket/prefix`.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.name, prefix = split_url(self.url)
        self.prefix = f"{prefix}/" if prefix else ""

    @cached_property
    def s3(self) -> S3:
        """The way to it."""
        return open_s3()

    def trouble(self) -> AbstractContextManager[None]:
        """See `Store.trouble`."""
        return disk_errors(self.url)

    def read(self, read: Callable[[_Version], T]) -> T:
        """See `Store.read`."""
        while True:
            manifest = self.manifest()
            try:
                return read(_Version(self, manifest))
            except FileNotFoundError:
                if manifest.files == self.manifest().files:
                    raise

    def change(self) -> _Change:
        """See `Store.change`."""
        return _Change(self)

    def manifest(self) -> _Manifest:
        """The current version."""
        try:
            found = self.call("get_object", _MANIFEST)
        except IntegrationError as error:
            if error.code != "NoSuchKey":
                raise
            return _Manifest({})
        said = orjson.loads(found["Body"])
        return _Manifest(said["files"], tuple(said["writers"]), tuple(said["obsolete"]), found["ETag"])

    def put_manifest(self, manifest: _Manifest) -> _Manifest:
        """Puts a manifest in the place of the one whose ETag it has; returns it with its own.

        Raises:
            DestinationError: That one is not there any more.
        """
        said = {"files": manifest.files, "writers": manifest.writers, "obsolete": manifest.obsolete}
        condition = {"IfMatch": manifest.etag} if manifest.etag else {"IfNoneMatch": "*"}
        try:
            put = self.call("put_object", _MANIFEST, Body=orjson.dumps(said, option=orjson.OPT_INDENT_2), **condition)
        except IntegrationError as error:
            if error.code not in {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}:
                raise
            there = self.manifest()  # ours, if only the answer to the first attempt was lost
            if replace(there, etag=manifest.etag) != manifest:
                raise overtaken(self.url) from None
            return there
        return replace(manifest, etag=put["ETag"])

    def call(self, operation: str, name: str, **more: object) -> Any:  # noqa: ANN401  (boto3's)
        """Does something with an object."""
        return self.s3.call(operation, self.at(name), **more)

    def at(self, name: str) -> str:
        """The address of an object."""
        return f"s3://{self.name}/{self.prefix}{name}"

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects; one that is not there is deleted."""
        for refused in self.s3.objects.delete_many(map(self.at, names)).refused:
            raise DestinationError(
                f"{refused.url}: cannot be deleted: {refused.message} ({refused.code})",
                hint="the credentials need s3:DeleteObject there",
            )


class _Version:
    """What a manifest names (`Version`)."""

    def __init__(self, bucket: Bucket, manifest: _Manifest) -> None:
        self._bucket, self.manifest = bucket, manifest

    @property
    def names(self) -> list[str]:
        """See `Version.names`."""
        return sorted(self.manifest.files)

    def open(self, name: str) -> BinaryIO:
        """See `Version.open`."""
        try:
            return io.BytesIO(self._bucket.call("get_object", self.manifest.files[name])["Body"])
        except IntegrationError as error:
            if error.code == "NoSuchKey":
                raise FileNotFoundError(name) from None
            raise


class _Change:
    """The next version of a prefix (`Change`)."""

    most_open = 16

    def __init__(self, bucket: Bucket) -> None:
        self._bucket, self._id = bucket, uuid.uuid4().hex[:12]
        self._created: dict[str, _Upload] = {}
        self._stack = ExitStack()
        with self._stack:
            self._wait_turn()
            before = bucket.manifest()
            self._ours = bucket.put_manifest(replace(before, writers=(*before.writers, self._id)))
            self._sweep(before)
            self.base = _Version(bucket, self._ours)
            self._stack.callback(self._abort)
            self._stack = self._stack.pop_all()

    def create(self, name: str) -> Sink:
        """See `Change.create`."""
        folder, slash, file = name.rpartition("/")
        stem, dot, suffix = file.partition(".")
        upload = _Upload(self._bucket, f"{folder}{slash}{stem}.{self._id}{dot}{suffix}")
        self._created[name] = upload
        return upload

    def publish(self, stays: Callable[[str], bool]) -> None:
        """See `Change.publish`."""
        self._check_alone()
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(_Upload.complete, self._created.values()))
        old = self._ours.files
        kept = {name: key for name, key in old.items() if name not in self._created and stays(name)}
        files = kept | {name: upload.name for name, upload in self._created.items()}
        obsolete = tuple(sorted(set(old.values()) - set(files.values())))
        self._show(_Manifest(dict(sorted(files.items())), (), obsolete, self._ours.etag))
        try:
            self._bucket.delete(obsolete)
        except (IntegrationError, DestinationError) as error:
            _LOG.warning(
                "%s: objects that were replaced are still there until the next run: %s", self._bucket.url, error
            )

    def close(self) -> None:
        """Removes objects that were not published; the next change removes what this one cannot."""
        self._stack.close()

    def _show(self, manifest: _Manifest) -> None:
        created, self._created = self._created, {}  # once the request is sent, they may be part of the version
        try:
            self._bucket.put_manifest(manifest)
        except DestinationError:
            self._created = created
            raise

    def _check_alone(self) -> None:
        """Spares a listing the objects of a change that cannot publish any more."""
        if self._bucket.manifest().etag != self._ours.etag:
            raise overtaken(self._bucket.url)

    def _abort(self) -> None:
        try:
            for upload in self._created.values():
                upload.abort()
        except (IntegrationError, DestinationError) as error:
            _LOG.warning("%s: what was uploaded is still there until the next run: %s", self._bucket.url, error)

    def _wait_turn(self) -> None:
        """Lets the runs of this machine wait for each other."""
        path = get_settings().path(f"data/locks/s3-{hashlib.sha256(self._bucket.url.encode()).hexdigest()[:32]}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._stack.enter_context(FileLock(path, timeout=get_settings().lock_timeout))
        except Timeout:
            raise busy(self._bucket.url) from None

    def _sweep(self, before: _Manifest) -> None:
        """Removes what changes left that did not come to their end."""
        self._bucket.delete(before.obsolete)
        if not before.writers:
            return
        root, s3 = self._bucket.at(""), self._bucket.s3
        for url, id_ in unfinished(s3, root):
            if _is_of(url, before.writers):
                s3.call("abort_multipart_upload", url, UploadId=id_)
        found = (entry.url for entry in s3.objects.list(root) if _is_of(entry.url, before.writers))
        self._bucket.delete(url.removeprefix(root) for url in found)


class _Upload:
    """An object that is being uploaded, part by part (`Sink`); nobody sees it before `complete`.

    Args:
        bucket: Where it goes.
        name: Its key, without the prefix.
    """

    def __init__(self, bucket: Bucket, name: str) -> None:
        self.name, self.closed = name, False
        self._bucket, self._size = bucket, 0
        self._waiting = bytearray()
        self._upload: Multipart | None = None
        self._sent, self._shown = 0, False

    def write(self, data: bytes) -> int:
        """See `Sink.write`."""
        self._waiting += data
        self._size += len(data)
        while len(self._waiting) >= _PART and not self.closed:
            self._send(_PART)
        return len(data)

    def tell(self) -> int:
        """See `Sink.tell`."""
        return self._size

    def flush(self) -> None:
        """See `Sink.flush`."""

    def close(self) -> None:
        """See `Sink.close`."""
        if not self.closed:
            self.closed = True
            if self._waiting or not self._sent:
                self._send(len(self._waiting))

    def complete(self) -> None:
        """Shows the object."""
        if self._upload is not None:  # it is, once it is closed
            self._upload.complete()
            self._shown = True

    def abort(self) -> None:
        """Forgets what was sent."""
        self.closed = True
        self._waiting.clear()
        if self._shown:
            self._bucket.delete([self.name])
        elif self._upload is not None:
            self._upload.abort()

    def _send(self, size: int) -> None:
        self._upload = self._upload or Multipart(self._bucket.s3, self._bucket.at(self.name))
        self._upload.send((self._sent + 1, bytes(self._waiting[:size])))
        self._sent += 1
        del self._waiting[:size]


def overtaken(url: str) -> DestinationError:
    """The error that a later change has begun."""
    return DestinationError(
        f"{url}: another run has begun to write there since this one did; nothing was published",
        hint="let one run at a time write there, and run again",
        retryable=True,
    )


def _is_of(key: str, writers: Iterable[str]) -> bool:
    """Whether one of these changes made an object."""
    return any(f".{writer}." in f"{key.rpartition('/')[2]}." for writer in writers)

"""How an object becomes another one within S3."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from integrations.calls import idempotency_key
from integrations.parallel import in_order
from integrations.s3.client import Client, split_url
from integrations.s3.downloading import ObjectInfo, look
from integrations.s3.uploading import Encryption, Multipart, Stored, encrypted

_IN_ONE_REQUEST = 5 << 30
"""What S3 copies at once, at most."""
_PART = 512 << 20
_KEPT = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Metadata",
    "StorageClass",
)


class Copy(Encryption, total=False):
    """How a copy is stored.

    Args:
        operation_id: The caller's own name of this one doing: it is told once, however often it is run again.
    """

    operation_id: str


def copy(client: Client, source: str, target: str, options: Copy) -> Stored:
    """Copies an object; see `Objects.copy`."""
    info, secured = look(client, source), encrypted(target, options)
    bucket, key = split_url(source)
    origin = {"CopySource": {"Bucket": bucket, "Key": key}, "CopySourceIfMatch": info.etag}
    if info.size <= _IN_ONE_REQUEST:
        etag = client.call("copy_object", target, **origin, **secured)["CopyObjectResult"]["ETag"]
    else:
        etag = _in_parts(client, info, target, origin, secured)
    told = {"size": info.size, "etag": etag, "source": source}
    once = options.get("operation_id")
    client.tell("file.copied", target, told, idempotency_key("s3.copy", once) if once else None)
    return Stored(target, etag, info.size)


def _in_parts(
    client: Client, info: ObjectInfo, target: str, origin: Mapping[str, object], secured: Mapping[str, object]
) -> str:
    """Parts know nothing of what is beside the bytes: it is taken over from the source."""
    head = client.call("head_object", info.url, IfMatch=info.etag)
    tags = client.call("get_object_tagging", info.url)["TagSet"]
    tagged = {"Tagging": urlencode([(tag["Key"], tag["Value"]) for tag in tags])} if tags else {}
    kept = {name: head[name] for name in _KEPT if head.get(name)}
    parts = Multipart(client, target, **kept, **tagged, **secured)

    def one(start: int) -> None:
        last = min(start + _PART, info.size) - 1
        parts.copy(start // _PART + 1, CopySourceRange=f"bytes={start}-{last}", **origin)

    with parts:
        for _ in in_order(one, range(0, info.size, _PART), client.config.at_once):
            pass
        etag: str = parts.complete()["ETag"]
    return etag

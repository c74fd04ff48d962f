"""S3, and what speaks its protocol, through boto3: one retry budget, one family of errors, checksums both ways.

    s3 = open_s3()
    s3.objects.upload("s3://acme-inbox/orders.csv", Path("orders.csv"))
    s3.objects.download("s3://acme-inbox/orders.csv", Path("copy.csv"))

Credentials and region are those that AWS's own tools find: environment, profile, role of the machine.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from integrations.s3.client import Addressing, Client, S3Config, split_url
from integrations.s3.deleting import Deleted, Refused
from integrations.s3.downloading import ObjectInfo
from integrations.s3.errors import S3IntegrationError
from integrations.s3.folders import Folders
from integrations.s3.objects import Listed, Objects, Page, Upload
from integrations.s3.presigned import Form, Presigned
from integrations.s3.reader import ObjectReader
from integrations.s3.uploading import Multipart, Stored, unfinished

if TYPE_CHECKING:
    from events.log import EventLog
    from settings import Settings

__all__ = [
    "S3",
    "Addressing",
    "Deleted",
    "Form",
    "Listed",
    "Multipart",
    "ObjectInfo",
    "ObjectReader",
    "Page",
    "Refused",
    "S3Config",
    "S3IntegrationError",
    "Stored",
    "Upload",
    "configured",
    "open_s3",
    "split_url",
    "unfinished",
]


class S3(Client):
    """S3's operations, by what they are about. Threads may share it."""

    @cached_property
    def objects(self) -> Objects:
        """Objects."""
        return Objects(self)

    @cached_property
    def folders(self) -> Folders:
        """Folders."""
        return Folders(self, self.objects)

    @cached_property
    def presigned(self) -> Presigned:
        """Addresses and forms for others."""
        return Presigned(self)


def open_s3(events: EventLog | None = None) -> S3:
    """S3 as the settings say where it is.

    Args:
        events: Where changes are told; None: nowhere but in the log.
    """
    from settings import get_settings

    return S3(configured(get_settings()), events)


def configured(settings: Settings) -> S3Config:
    """How S3 is reached by the settings."""
    return S3Config(
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key,
        addressing=settings.s3_addressing,
    )

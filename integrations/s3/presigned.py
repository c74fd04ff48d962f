"""Addresses that let others read or write one object for a while, without credentials of their own.

They are as good as a key until they expire: they belong in no log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from integrations.s3.client import Client, address
from integrations.s3.errors import mistake, unanswered

_LONGEST = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Form:
    """What a browser posts a file with: `multipart/form-data`, these fields first, the file last, as `file`.

    Args:
        url: Where to.
        fields: Names and values.
    """

    url: str
    fields: Mapping[str, str] = field(repr=False)


class Presigned:
    """Presigned requests. To make one asks nobody: whether it is granted shows when it is used.

    Every method raises `S3IntegrationError` if there are no credentials, or no such time.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, url: str, *, expires: int = 3600, save_as: str | None = None) -> str:
        """An address that an object can be read from.

        Args:
            url: The object.
            expires: Seconds; a week at most, and no longer than the credentials that sign it.
            save_as: The name under which a browser saves it; shown in the browser if not given.
        """
        shown = {"ResponseContentDisposition": f'attachment; filename="{save_as}"'} if save_as else {}
        return self._url("get_object", url, expires, shown)

    def put(self, url: str, *, expires: int = 3600, content_type: str | None = None) -> str:
        """An address that an object can be put to.

        Args:
            url: The object.
            expires: As for `get`.
            content_type: What the `Content-Type` of the request must be.
        """
        return self._url("put_object", url, expires, {"ContentType": content_type} if content_type else {})

    def post(self, url: str, *, largest: int, expires: int = 3600, content_type: str | None = None) -> Form:
        """A form that an object can be posted with.

        Args:
            url: The object; a key that ends with `${filename}` takes the name of the file.
            largest: The bytes that it may have.
            expires: As for `get`.
            content_type: What its type must be.
        """
        bucket, key = self._checked("post", url, expires)
        typed = {"Content-Type": content_type} if content_type else {}
        conditions = [["content-length-range", 0, largest], *({name: value} for name, value in typed.items())]
        made = self._made(
            "generate_presigned_post", url, bucket, key, Fields=typed, Conditions=conditions, ExpiresIn=expires
        )
        return Form(made["url"], made["fields"])

    def _url(self, operation: str, url: str, expires: int, params: Mapping[str, object]) -> str:
        bucket, key = self._checked(operation, url, expires)
        params = {"Bucket": bucket, "Key": key, **params}
        signed: str = self._made("generate_presigned_url", url, operation, Params=params, ExpiresIn=expires)
        return signed

    def _checked(self, operation: str, url: str, expires: int) -> tuple[str, str]:
        if not 1 <= expires <= _LONGEST:
            raise mistake(operation, f"{url}: an address for {expires} s", f"give 1 to {_LONGEST} s (a week)")
        return address(operation, url)

    def _made(self, method: str, url: str, *args: str, **params: object) -> Any:  # noqa: ANN401  (boto3's)
        from botocore.exceptions import BotoCoreError

        try:
            return getattr(self._client.sdk, method)(*args, **params)
        except BotoCoreError as error:
            raise unanswered(error, method, url, 1) from error

"""One version of an object as a file that can be read anywhere."""

from __future__ import annotations

import io

from integrations.s3.client import Client
from integrations.s3.downloading import fetch


class ObjectReader(io.RawIOBase):
    """One version of an object, as a binary file. Each read asks for its range; wrap it in a buffer for small ones.

    Args:
        client: The way to S3.
        url: `s3://bucket/key`.
        size: Its bytes.
        etag: The version: reading fails with `PreconditionFailed` (and says so) once the object has another one.
    """

    def __init__(self, client: Client, url: str, size: int, etag: str) -> None:
        super().__init__()
        self._client, self._url = client, url
        self._size, self._etag = size, etag
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to another place; asks nobody."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """The next bytes.

        Raises:
            S3IntegrationError: They did not come.
        """
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        chunk = fetch(self._client, self._url, self._etag, self._position, self._position + wanted)
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)

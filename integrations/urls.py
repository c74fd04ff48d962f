"""URLs as they may be shown, and who may see the same credential."""

from __future__ import annotations

import re
from urllib.parse import quote_plus

import httpx

_SECRET_NAME = re.compile(r"key|token|secret|passw|sig|auth|credential|session|code", re.IGNORECASE)


def clean_url(url: str) -> str:
    """The URL without user, password and the values of query parameters whose names tell of a secret."""
    parts = httpx.URL(url)
    query = "&".join(
        f"{quote_plus(name)}={'***' if _SECRET_NAME.search(name) else quote_plus(value)}"
        for name, value in parts.params.multi_items()
    )
    return str(parts.copy_with(userinfo=b"", query=query.encode() or None, fragment=None))


def same_origin(one: str, other: str) -> bool:
    """Whether two absolute URLs have scheme, host and port in common: what may see the same credential."""
    return origin(httpx.URL(one)) == origin(httpx.URL(other))


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Scheme, host and port."""
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def absolute(url: httpx.URL, link: str) -> str:
    """Where a link leads; the link itself if it leads nowhere."""
    try:
        return str(url.join(link))
    except httpx.InvalidURL:
        return link

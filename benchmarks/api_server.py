"""An HTTP API of 200 pages of 1,000 nested customers, made before the first one is asked for.

python -m benchmarks.api_server PORT
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import orjson

PAGES, ROWS = 200, 1000


def customer(number: int) -> dict[str, object]:
    """One record."""
    return {
        "id": f"cus_{number:08d}",
        "number": number,
        "name": f"Customer {number}",
        "email": f"customer{number}@example.com" if number % 100 else "not an address",
        "balance": number * 7 % 100000 / 100,
        "active": number % 3 > 0,
        "created": "2024-01-01T00:00:00Z",
        "address": {"city": f"City {number % 500}", "country": "DE", "postal_code": f"{number % 100000:05d}"},
        "plan": {"id": f"plan_{number % 10}", "limits": {"users": number % 50, "projects": number % 7}},
        "tags": ["a", "b"] if number % 2 else [],
    }


def _page(number: int) -> bytes:
    records = [customer(number * ROWS + row) for row in range(ROWS)] if number < PAGES else []
    return orjson.dumps({"data": records})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pages: list[bytes]

    def do_GET(self) -> None:
        number = int(parse_qs(urlsplit(self.path).query)["page"][0]) - 1
        body = self.pages[min(number, PAGES)]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server's name)
        """Says nothing: what is measured must not pay for a log."""


if __name__ == "__main__":
    _Handler.pages = [_page(number) for number in range(PAGES + 1)]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()

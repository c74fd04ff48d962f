"""The sandbox's S3: moto, which knows what S3 refuses, behind the sandbox's own wire.

moto keeps what it stores in this process: all sandboxes of a process share it. It takes any credentials. What it does
not look at is refused here as S3 would: a body whose checksum is another one.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import sys
import zlib
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

BUCKET = "sandbox"
"""The bucket that is there from the first call on."""

_CODES = {
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    409: "OperationAborted",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}


class S3Service:
    """S3, as long as moto is installed; without it, every call is answered with what is to be installed."""

    available = importlib.util.find_spec("moto") is not None

    def reset(self) -> None:
        """Empties it, if it was ever asked."""
        if "_moto" in self.__dict__:
            self._empty(self._moto)

    def create_bucket(self, name: str) -> None:
        """Makes a bucket."""
        self._ask(self._moto, "PUT", f"/{name}")

    def app(self) -> ASGIApp:
        """S3's API."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            body = await request.body()
            answer = await run_in_threadpool(self._answer, request, body)
            await answer(scope, receive, send)

        return app

    @cached_property
    def _moto(self) -> Any:  # noqa: ANN401  (a WSGI app)
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        moto = DomainDispatcherApplication(create_backend_app)
        self._empty(moto)
        return moto

    def _empty(self, moto: Any) -> None:  # noqa: ANN401
        self._ask(moto, "POST", "/moto-api/reset")
        self._ask(moto, "PUT", f"/{BUCKET}")

    def _answer(self, request: Request, body: bytes) -> Response:
        if not self.available:
            return _refused(501, "NotImplemented", "pip install 'moto[s3]' flask flask-cors")
        told = request.headers.get("x-amz-checksum-crc32")
        if told is not None and told != base64.b64encode(zlib.crc32(body).to_bytes(4)).decode():
            return _refused(400, "BadDigest", "The CRC32 you specified did not match the calculated checksum.")
        path = request.scope["raw_path"].decode().removeprefix(request.scope.get("root_path", "")) or "/"
        names = {"content-type": "CONTENT_TYPE"}
        headers = {
            names.get(name, f"HTTP_{name.upper().replace('-', '_')}"): value
            for name, value in request.headers.items()
            if name not in {"host", "content-length", "transfer-encoding", "expect"}
        }
        return self._ask(self._moto, request.method, path, request.url.query, body, headers)

    def _ask(
        self,
        moto: Any,  # noqa: ANN401
        method: str,
        path: str,
        query: str = "",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> Response:
        from werkzeug.test import run_wsgi_app

        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "RAW_URI": f"{path}?{query}" if query else path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",  # in any other name, moto looks for the bucket's
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **(headers or {}),
        }
        content, status, told = run_wsgi_app(moto, environ, buffered=True)
        answer = Response(b"".join(content), int(status.split()[0]))
        # As they are: the length that HEAD tells is not that of the body.
        answer.raw_headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in told]
        return answer


def error(status: int) -> Response:
    """S3's answer to an HTTP status."""
    return _refused(status, _CODES.get(status, f"Error{status}"), "The sandbox was told to answer so.")


def _refused(status: int, code: str, message: str) -> Response:
    told = f"<Code>{code}</Code><Message>{message}</Message><RequestId>SANDBOX</RequestId>"
    document = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{told}</Error>'
    return Response(document, status, {"x-amz-request-id": "SANDBOX"}, "application/xml")

"""The sandbox's S3: moto, which knows what S3 refuses, behind the sandbox's own wire.

moto keeps what it stores in this process: all sandboxes of a process share it. It takes any credentials. What it lets
pass is refused here (`_refusal`): a body that is not the one of its checksum, a key that is too long, ...
"""

from __future__ import annotations

import base64
import importlib.util
import io
import re
import sys
import zlib
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

BUCKET = "sandbox"
"""The bucket that is there from the first call on."""

_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
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
        path = request.scope["raw_path"].decode().removeprefix(request.scope.get("root_path", "")) or "/"
        refusal = _refusal(request, unquote(path), body)
        if refusal is not None:
            return refusal
        names = {"content-type": "CONTENT_TYPE"}
        headers = {
            names.get(name, f"HTTP_{name.upper().replace('-', '_')}"): value
            for name, value in request.headers.items()
            if name not in {"host", "content-length", "transfer-encoding", "expect"}
        }
        try:
            return self._ask(self._moto, request.method, path, request.url.query, body, headers)
        except KeyError:  # moto looks for the upload of a part without asking whether it is there
            return _refused(404, "NoSuchUpload", "The specified upload does not exist.")

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


def _refusal(request: Request, path: str, body: bytes) -> Response | None:
    """The answer to what S3 refuses, and moto does not."""
    told = request.headers.get("x-amz-checksum-crc32") if request.method == "PUT" else None  # of POST: the object's
    if told is not None and told != base64.b64encode(zlib.crc32(body).to_bytes(4)).decode():
        return _refused(400, "BadDigest", "The CRC32 you specified did not match the calculated checksum.")
    _, bucket, key = path.split("/", 2) if path.count("/") > 1 else ("", path.strip("/"), "")
    if len(key.encode()) > 1024:
        return _refused(400, "KeyTooLongError", "Your key is too long")
    if request.method == "PUT" and not key and not _BUCKET_NAME.fullmatch(bucket):
        return _refused(400, "InvalidBucketName", "The specified bucket is not valid.")
    own = [name.removeprefix("x-amz-meta-") + value for name, value in request.headers.items() if "x-amz-meta-" in name]
    if sum(map(len, own)) > 2048:
        return _refused(400, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
    tags = [name for name, _ in parse_qsl(request.headers.get("x-amz-tagging", ""))]
    if len(tags) > len(set(tags)):
        return _refused(400, "InvalidTag", "Cannot provide multiple Tags with the same key")
    return None


def _refused(status: int, code: str, message: str) -> Response:
    told = f"<Code>{code}</Code><Message>{message}</Message><RequestId>SANDBOX</RequestId>"
    document = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{told}</Error>'
    return Response(document, status, {"x-amz-request-id": "SANDBOX"}, "application/xml")

"""Who may call the sandbox's Google and Microsoft: tokens for an hour, for credentials that the sandbox made up."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_plus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.world import Clock

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

Json = dict[str, Any]

GOOGLE_SCOPE = "https://www.googleapis.com/auth/calendar"
LIFETIME = 3600
_AUDIENCE = "https://oauth2.googleapis.com/token"
"""Google's own, wherever the endpoint is that google-auth asks."""
_JWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Tokens:
    """The tokens that were given.

    Args:
        clock: Tells the time.
        prefix: How they start.
    """

    def __init__(self, clock: Clock, prefix: str) -> None:
        self._clock, self._prefix = clock, prefix
        self._until: dict[str, int] = {}

    def give(self) -> Json:
        """A new one, as a token endpoint answers it."""
        token = f"{self._prefix}{secrets.token_urlsafe(32)}"
        self._until[token] = self._clock.now() + LIFETIME
        return {"access_token": token, "expires_in": LIFETIME, "token_type": "Bearer"}

    def hold(self, request: Request) -> bool:
        """Whether a request carries one that holds."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme == "Bearer" and self._until.get(token, 0) > self._clock.now()

    def revoke(self) -> None:
        """None of them holds any more."""
        self._until.clear()


class GoogleLogin:
    """Google's token endpoint, with one service account and one user.

    Args:
        tokens: The tokens that it gives.
    """

    client_email = "sandbox@pivotal-sandbox.iam.gserviceaccount.com"

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._client_id, self._client_secret = "sandbox.apps.googleusercontent.com", secrets.token_urlsafe(16)
        self._refresh_token = f"1//{secrets.token_urlsafe(32)}"

    def app(self) -> Starlette:
        """`/token`."""
        return Starlette(routes=[Route("/token", self._give, methods=["POST"])])

    def service_account(self, base: str) -> Json:
        """The key of the service account, as Google lets it be downloaded.

        Args:
            base: Where this endpoint is.
        """
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return {
            "type": "service_account",
            "project_id": "pivotal-sandbox",
            "private_key_id": "sandbox",
            "private_key": pem,
            "client_email": self.client_email,
            "token_uri": f"{base}/token",
        }

    def authorized_user(self, base: str) -> Json:
        """What a user has authorized, as `gcloud` and google-auth keep it."""
        return {
            "type": "authorized_user",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
            "refresh_token": self._refresh_token,
            "token_uri": f"{base}/token",
        }

    @cached_property
    def _key(self) -> RSAPrivateKey:
        from cryptography.hazmat.primitives.asymmetric import rsa

        return rsa.generate_private_key(65537, 2048)

    async def _give(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        if form.get("grant_type") == _JWT:
            wrong = self._wrong_assertion(form)
        elif form.get("grant_type") == "refresh_token":
            wrong = self._wrong_user(form)
        else:
            wrong = ("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}")
        if wrong:
            status = 401 if wrong[0] == "invalid_client" else 400
            return JSONResponse({"error": wrong[0], "error_description": wrong[1]}, status)
        return JSONResponse(self._tokens.give() | {"scope": GOOGLE_SCOPE})

    def _wrong_assertion(self, form: Mapping[str, str]) -> tuple[str, str] | None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
        from google.auth import jwt
        from google.auth.exceptions import GoogleAuthError

        pem = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        try:
            claims = jwt.decode(str(form.get("assertion")), certs=pem, audience=_AUDIENCE)  # type: ignore[no-untyped-call]
        except (ValueError, GoogleAuthError):
            return "invalid_grant", "Invalid JWT Signature."
        if claims.get("iss") != self.client_email:
            return "invalid_grant", "Invalid grant: account not found"
        if GOOGLE_SCOPE not in str(claims.get("scope")).split():
            return "invalid_scope", "Empty or missing scope not allowed."
        return None

    def _wrong_user(self, form: Mapping[str, str]) -> tuple[str, str] | None:
        if (form.get("client_id"), form.get("client_secret")) != (self._client_id, self._client_secret):
            return "invalid_client", "The OAuth client was not found."
        if form.get("refresh_token") != self._refresh_token:
            return "invalid_grant", "Token has been expired or revoked."
        return None


class MicrosoftLogin:
    """Microsoft's token endpoint (identity platform v2.0), with one tenant and one application.

    Args:
        tokens: The tokens that it gives.
    """

    tenant_id, client_id = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self.client_secret = f"{secrets.token_urlsafe(12)}~{secrets.token_urlsafe(12)}"

    def app(self) -> Starlette:
        """`/{tenant}/oauth2/v2.0/token`."""
        return Starlette(routes=[Route("/{tenant}/oauth2/v2.0/token", self._give, methods=["POST"])])

    async def _give(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        wrong = self._wrong(form, request)
        if wrong:
            return JSONResponse({"error": wrong[0], "error_description": wrong[1], "error_codes": [wrong[2]]}, wrong[3])
        return JSONResponse(self._tokens.give() | {"ext_expires_in": LIFETIME})

    def _wrong(self, form: Mapping[str, str], request: Request) -> tuple[str, str, int, int] | None:
        if request.path_params["tenant"] != self.tenant_id:
            return "invalid_request", "AADSTS90002: Tenant not found.", 90002, 400
        if form.get("grant_type") != "client_credentials":
            return "unsupported_grant_type", "AADSTS70003: The app requested an unsupported grant type.", 70003, 400
        name, secret = _client(form, request)
        if name != self.client_id:
            return "unauthorized_client", "AADSTS700016: Application was not found in the directory.", 700016, 400
        if secret != self.client_secret:
            return "invalid_client", "AADSTS7000215: Invalid client secret provided.", 7000215, 401
        if not str(form.get("scope")).endswith("/.default"):
            return "invalid_scope", "AADSTS1002012: The provided value for scope is not valid.", 1002012, 400
        return None


def error(status: int) -> Response:
    """What a token endpoint answers to an HTTP status (RFC 6749, 5.2)."""
    refused = "invalid_client" if status == 401 else "invalid_request"
    return JSONResponse({"error": refused if status < 500 else "temporarily_unavailable"}, status)


def _client(form: Mapping[str, str], request: Request) -> tuple[str, str]:
    """By the form, or by RFC 6749's Basic: Microsoft takes both."""
    import base64
    import binascii

    scheme, _, pair = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        return str(form.get("client_id")), str(form.get("client_secret"))
    try:
        name, _, secret = base64.b64decode(pair, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return unquote_plus(name), unquote_plus(secret)

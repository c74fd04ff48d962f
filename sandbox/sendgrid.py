"""SendGrid, as the sandbox plays it: strict `mail/send`, templates, contacts, suppressions, and events of every mail.

What becomes of a mail, `sandbox.postoffice` says; of a contact, `sandbox.mail_contacts`. A sender `unverified@...` is
refused.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.mail import read
from sandbox.mail_contacts import Contacts
from sandbox.mail_refusals import Refused, error, refusal
from sandbox.mail_templates import Templates
from sandbox.postoffice import PostOffice
from sandbox.suppressions import Suppressions
from sandbox.webhooks import SendGridSigner, Webhooks
from sandbox.world import Clock, Ids

__all__ = ["SendGridService", "error"]


class SendGridService:
    """SendGrid, with one account.

    Args:
        clock: Tells the time.
        webhooks: Takes the events of mails.
        signer: Whose public key the settings show.
    """

    def __init__(self, clock: Clock, webhooks: Webhooks, signer: SendGridSigner) -> None:
        self._clock = clock
        self._webhooks = webhooks
        self._signer = signer
        self.reset(Ids())

    def reset(self, ids: Ids) -> None:
        """Starts again: nothing was sent, nobody is suppressed, no template, no contact; ids come from `ids`."""
        self._ids = ids
        self.suppressions = Suppressions(self._clock)
        self.templates, self.contacts = Templates(self._clock, ids), Contacts(self._clock, ids)
        self._postoffice = PostOffice(self._clock, ids, self._webhooks, self.suppressions, self.templates)
        own = [
            Route("/v3/mail/send", self._send, methods=["POST"]),
            Route("/v3/user/webhooks/event/settings/signed", self._show_key, methods=["GET"]),
        ]
        self._router = Router(
            [*own, *self.suppressions.routes(), *self.templates.routes(), *self.contacts.routes()],
            redirect_slashes=False,
        )

    def app(self) -> ASGIApp:
        """The API, from `/v3` on."""
        handlers = {HTTPException: _in_shape, Refused: _in_shape}
        app = Starlette(exception_handlers=handlers)
        app.mount("/", self._authenticated)
        return app

    def tick(self) -> None:
        """Delivers the scheduled mail that is due."""
        self._postoffice.deliver()

    async def _authenticated(self, scope: Scope, receive: Receive, send: Send) -> None:
        scheme, _, key = Request(scope).headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not key.startswith("SG."):
            raise HTTPException(401)
        self.tick()
        await self._router(scope, receive, send)

    async def _send(self, request: Request) -> Response:
        if not request.headers.get("Content-Type", "").startswith("application/json"):
            raise Refused(("Content-Type should be application/json.", None), status=415)
        mail = read(await request.body(), self._clock.now())
        if mail.asm and not self.suppressions.has_group(mail.asm.group_id):
            message = f"The ASM group ID must be a valid Group ID on your account. You provided {mail.asm.group_id}."
            raise Refused((message, "asm.group_id"))
        if mail.from_.email.startswith("unverified@"):
            raise Refused(("The from address does not match a verified Sender Identity.", "from"), status=403)
        message_id = self._ids.new("message", 22)
        self._postoffice.take(mail, message_id)
        return Response(status_code=202, headers={"X-Message-Id": message_id})

    async def _show_key(self, _: Request) -> Response:
        return JSONResponse({"public_key": self._signer.public_key})


async def _in_shape(_: Request, exception: Exception) -> Response:
    if isinstance(exception, Refused):
        return refusal(*exception.mistakes, status=exception.status)
    if isinstance(exception, HTTPException):
        return error(exception.status_code)
    raise exception

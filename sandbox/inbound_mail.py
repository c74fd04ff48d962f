"""SendGrid's inbound parse, as the sandbox plays it: a mail from outside is posted as a signed form, parsed or raw."""

from __future__ import annotations

import json
from email.message import EmailMessage

from pydantic import BaseModel, ConfigDict

from sandbox.webhooks import SendGridSigner, Webhooks
from sandbox.world import Ids

_BOUNDARY = "xYzZY"
_UTF8 = ("to", "from", "subject", "text")


class InboundMail(BaseModel):
    """A mail that somebody sends to an address of ours."""

    model_config = ConfigDict(extra="forbid")

    sender: str
    to: str = "in@parse.example.com"
    subject: str = ""
    text: str = ""
    raw: bool = False


class ParseService:
    """Takes mails from outside for one account.

    Args:
        webhooks: Where they are posted: each endpoint of `sendgrid-inbound`.
        signer: Signs them.
    """

    def __init__(self, webhooks: Webhooks, signer: SendGridSigner) -> None:
        self._webhooks, self._signer = webhooks, signer
        self.reset(Ids())

    def reset(self, ids: Ids) -> None:
        """Starts again; ids come from `ids`."""
        self._ids = ids

    def receive(self, mail: InboundMail) -> None:
        """Posts a mail."""
        message = EmailMessage()
        message["Message-Id"] = name = f"<{self._ids.new('mail', 22)}@mail.example.com>"
        message["From"], message["To"], message["Subject"] = mail.sender, mail.to, mail.subject
        head = message.as_string()
        message.set_content(mail.text)
        told = {"email": message.as_string()} if mail.raw else {"headers": head, "text": mail.text}
        body = _form(told | _about(mail))
        for endpoint in self._webhooks.endpoints:
            if endpoint.service == "sendgrid-inbound":
                headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"} | self._signer.headers(body)
                self._webhooks.post("sendgrid-inbound", endpoint.url, body, [name], headers)


def _about(mail: InboundMail) -> dict[str, str]:
    return {
        "from": mail.sender,
        "to": mail.to,
        "subject": mail.subject,
        "envelope": json.dumps({"to": [mail.to], "from": mail.sender}),
        "charsets": json.dumps(dict.fromkeys(_UTF8[: 3 if mail.raw else 4], "UTF-8")),
        "sender_ip": "192.0.2.1",
        "SPF": "pass",
        "dkim": f"{{@{mail.sender.rpartition('@')[2]} : pass}}",
    }


def _form(fields: dict[str, str]) -> bytes:
    parts = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return f"{''.join(parts)}--{_BOUNDARY}--\r\n".encode()

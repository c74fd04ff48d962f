"""SendGrid, through its official SDK: mail, templates, contacts, suppressions; one retry budget, one family of errors.

    sendgrid = SendGrid(SendGridConfig(api_key=SecretStr("SG....")))
    message_id = sendgrid.mail.send(Message("shop@example.com", ("ada@example.com",), "Welcome", "Hello"),
                                    operation_id="welcome-4711")

With an event log, each mail that SendGrid takes is told there, and so comes into `email_messages`.
"""

from __future__ import annotations

from functools import cached_property

from integrations.sendgrid.client import Client, SendGridConfig
from integrations.sendgrid.contacts import JOB_FAILED, JOB_PENDING, Contact, Contacts, Job
from integrations.sendgrid.errors import Mistake, SendGridIntegrationError
from integrations.sendgrid.mail import Mail, Sent
from integrations.sendgrid.message import RECIPIENTS, Attachment, Message
from integrations.sendgrid.past import DOUBTFUL
from integrations.sendgrid.suppressions import Suppression, Suppressions
from integrations.sendgrid.templates import Template, Templates, Version, VersionParams

__all__ = [
    "DOUBTFUL",
    "JOB_FAILED",
    "JOB_PENDING",
    "RECIPIENTS",
    "Attachment",
    "Contact",
    "Job",
    "Message",
    "Mistake",
    "SendGrid",
    "SendGridConfig",
    "SendGridIntegrationError",
    "Sent",
    "Suppression",
    "Template",
    "Version",
    "VersionParams",
]


class SendGrid(Client):
    """SendGrid's operations, by resource."""

    @cached_property
    def mail(self) -> Mail:
        """Sending mail."""
        return Mail(self)

    @cached_property
    def templates(self) -> Templates:
        """What mails look like."""
        return Templates(self)

    @cached_property
    def contacts(self) -> Contacts:
        """Who marketing campaigns go to."""
        return Contacts(self)

    @cached_property
    def suppressions(self) -> Suppressions:
        """Who gets no mail."""
        return Suppressions(self)

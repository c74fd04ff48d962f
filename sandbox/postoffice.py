"""What becomes of the mail that the sandbox's SendGrid takes, told as SendGrid's events.

Addresses decide: `bounce@...` bounces, `block@...` is blocked, `spam@...` reports it as spam, `unsubscribe@...` leaves
its group (or everything); what is sent to a suppressed address is dropped. Every other mail is delivered, opened if it
has HTML, and clicked if that has a link. Mail with a template that is not there is dropped, as SendGrid drops it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from sandbox.mail import Mail, Personalization
from sandbox.mail_refusals import Json
from sandbox.mail_templates import Templates
from sandbox.suppressions import Suppressions
from sandbox.webhooks import Webhooks
from sandbox.world import Clock, Ids

_AGENT = {"useragent": "Mozilla/5.0 (Sandbox)", "ip": "198.51.100.7"}
_REFUSALS = {
    "bounce": ("550 5.1.1 The email account that you tried to reach does not exist", "5.1.1", "bounces", "bounce"),
    "block": ("451 4.7.1 Greylisting in action, please come back later", "4.7.1", "blocks", "blocked"),
}


class PostOffice:
    """Delivers mail, at once or when it is due.

    Args:
        clock: Tells the time.
        ids: Gives ids.
        webhooks: Takes the events.
        suppressions: Who gets no mail.
        templates: What mail looks like.
    """

    def __init__(
        self, clock: Clock, ids: Ids, webhooks: Webhooks, suppressions: Suppressions, templates: Templates
    ) -> None:
        self._clock, self._ids, self._webhooks = clock, ids, webhooks
        self._suppressions, self._templates = suppressions, templates
        self._waiting: list[tuple[int, Mail, Personalization, str]] = []

    def take(self, mail: Mail, message_id: str) -> None:
        """Delivers a mail, or keeps it until its `send_at`."""
        now = self._clock.now()
        for personalization in mail.personalizations:
            due = personalization.send_at or mail.send_at or now
            self._waiting.append((due, mail, personalization, message_id))
        self.deliver()

    def deliver(self) -> None:
        """Delivers what is due by now."""
        now = self._clock.now()
        due = [each for each in self._waiting if each[0] <= now]
        self._waiting = [each for each in self._waiting if each[0] > now]
        transport: list[Json] = []
        engagement: list[Json] = []
        for _, mail, personalization, message_id in due:
            for _, _, email in personalization.recipients:
                about = self._about(mail, personalization, email, message_id)
                transport += self._transport(mail, email, about)
                if transport[-1]["event"] == "delivered":
                    engagement += self._engagement(mail, email, about)
        self._publish(transport)
        self._publish(engagement)

    def _about(self, mail: Mail, personalization: Personalization, email: str, message_id: str) -> Json:
        category = {"category": mail.categories} if mail.categories else {}
        group = {"asm_group_id": mail.asm.group_id} if mail.asm else {}
        return {
            **mail.custom_args,
            **personalization.custom_args,
            **category,
            **group,
            "email": email,
            "timestamp": self._clock.now(),
            "smtp-id": f"<{message_id}@sandbox.invalid>",
            "sg_message_id": f"{message_id}.recvd-sandbox-1-0",
        }

    def _transport(self, mail: Mail, email: str, about: Json) -> Iterator[Json]:
        why = self._suppressions.reason(email, mail.asm.group_id if mail.asm else None)
        if mail.template_id and self._templates.active(mail.template_id) is None:
            why = "Invalid SMTPAPI header"
        if why is not None:
            yield self._event("dropped", about, reason=why, status="5.0.0")
            return
        yield self._event("processed", about)
        refusal = _REFUSALS.get(email.lower().partition("@")[0])
        if refusal is None:
            yield self._event("delivered", about, response="250 OK")
            return
        reason, status, where, kind = refusal
        self._suppressions.put(where, email, reason=reason, status=status)
        yield self._event("bounce", about, reason=reason, status=status, type=kind)

    def _engagement(self, mail: Mail, email: str, about: Json) -> Iterator[Json]:
        html, tracking = self._html(mail), mail.tracking_settings
        if html and tracking.open_tracking.enable:
            yield self._event("open", about, **_AGENT)
        link = re.search(r"""href=["'](https?://[^"']+)""", html)
        if link and tracking.click_tracking.enable:
            yield self._event("click", about, url=link[1], **_AGENT)
        if email.lower().startswith("spam@"):
            self._suppressions.put("spam_reports", email, ip=_AGENT["ip"])
            yield self._event("spamreport", about)
        if email.lower().startswith("unsubscribe@"):
            yield self._unsubscribe(mail, email, about)

    def _unsubscribe(self, mail: Mail, email: str, about: Json) -> Json:
        if mail.asm is None:
            self._suppressions.put("unsubscribes", email)
            return self._event("unsubscribe", about)
        self._suppressions.leave(mail.asm.group_id, email)
        return self._event("group_unsubscribe", about)

    def _html(self, mail: Mail) -> str:
        if mail.template_id:
            return str((self._templates.active(mail.template_id) or {}).get("html_content", ""))
        return "".join(each.value for each in mail.content if each.type == "text/html")

    def _event(self, kind: str, about: Json, **more: str) -> Json:
        return {**about, "event": kind, "sg_event_id": self._ids.new("sg_event", 22), **more}

    def _publish(self, events: list[Json]) -> None:
        if events:
            self._webhooks.send("sendgrid", json.dumps(events).encode(), [each["sg_event_id"] for each in events])

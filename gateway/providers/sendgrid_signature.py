"""How SendGrid signs: ECDSA (P-256, SHA-256) over a timestamp and the body, its events and received mails alike.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
"""

from __future__ import annotations

import base64
import re
from functools import cached_property
from typing import TYPE_CHECKING

from gateway.provider import Hook
from gateway.refusal import RefusedError
from gateway.verify import check_age, header, in_base64, require, seconds
from settings import several

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
_TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"


class Signature:
    """Checks requests by SendGrid's public keys.

    Args:
        variable: Where the keys come from.
        keys: The keys, comma-separated, any of which may match: base64, or PEM.
        where: Where SendGrid shows them.
        tolerance: Seconds that the timestamp may be away from now, either way.
    """

    def __init__(self, variable: str, keys: str | None, where: str, tolerance: int) -> None:
        self._variable, self._texts, self._where, self._tolerance = variable, several(keys), where, tolerance

    def prepare(self) -> None:
        """Reads the keys.

        Raises:
            RefusedError: There is none, or one is none (503).
        """
        require(self._keys, self._variable)

    def check(self, hook: Hook) -> None:
        """Returns if the request is genuine and fresh. Not by SendGrid's SDK: that takes bodies of text only.

        Raises:
            RefusedError: It is malformed (400), not genuine or not fresh (401), or we cannot tell (503).
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        self.prepare()
        signature = base64.b64decode(in_base64(header(hook.headers, _SIGNATURE), _SIGNATURE))
        timestamp = header(hook.headers, _TIMESTAMP)
        sent_at = seconds(timestamp, _TIMESTAMP)
        signed = timestamp.encode() + hook.body
        for key in self._keys:
            try:
                key.verify(signature, signed, ECDSA(SHA256()))
            except InvalidSignature:
                continue
            return check_age(sent_at, self._tolerance)
        raise RefusedError(401, f"no key matched; {len(self._keys)} tried")

    @cached_property
    def _keys(self) -> list[EllipticCurvePublicKey]:
        return [self._key(text, number) for number, text in enumerate(self._texts, 1)]

    def _key(self, text: str, number: int) -> EllipticCurvePublicKey:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        # \n is how variables often spell the newlines of PEM.
        bare = re.sub(r"-----[A-Z ]+-----|\\n|\s", "", text)
        try:
            key = load_der_public_key(base64.b64decode(bare, validate=True))
        except ValueError:
            key = None
        if not isinstance(key, EllipticCurvePublicKey):
            reason = f"key {number} in {self._variable} is not an elliptic-curve public key"
            raise RefusedError(503, reason, hint=f"copy the verification key from SendGrid: {self._where}")
        return key

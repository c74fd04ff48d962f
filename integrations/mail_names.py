"""What a mail and its recipient are called: alike where the mail is sent and where SendGrid tells of it."""

from __future__ import annotations

import hashlib
import re


def recipient_of(message_id: str, address: str) -> str:
    """What a mail's recipient is called instead of the address, in events.

    The same person has another name in every mail, so that nobody is followed from one to the next.

    Args:
        message_id: The mail's id, as sending returned it.
        address: The e-mail address, in any case.
    """
    return hashlib.sha256(f"{message_id}/{address.lower()}".encode()).hexdigest()[:32]


def sent_id(full: str) -> str:
    """The id that sending returned (X-Message-Id): without the machine that filtered or received the mail.

    Args:
        full: `sg_message_id`, as SendGrid's events have it.
    """
    return re.split(r"\.(?:filter|recv)", full, maxsplit=1)[0]

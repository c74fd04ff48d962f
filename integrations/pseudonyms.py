"""Names for people that tell nothing of them, where an event or a log must say who but not to whom."""

from __future__ import annotations

import hashlib


def recipient_of(message_id: str, address: str) -> str:
    """What a mail's recipient is called instead of the address.

    The same person has another name in every mail, so that nobody is followed from one to the next.

    Args:
        message_id: The mail's id, as sending returned it.
        address: The e-mail address, in any case.
    """
    return hashlib.sha256(f"{message_id}/{address.lower()}".encode()).hexdigest()[:32]

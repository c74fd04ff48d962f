"""What the sandbox's Stripe answers instead of doing what it is asked, in Stripe's words."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818  (it is an answer, not a fault of the sandbox)
    """A request that is not done.

    Args:
        message: As Stripe words it.
        param: The parameter it is about.
        code: Stripe's name of the failure.
        kind: Stripe's `type` of error.
        status: HTTP status.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.kind = kind
        self.status = status


def missing(param: str) -> Refused:
    """A parameter that has to be there is not."""
    return Refused(f"Missing required param: {param}.", param=param, code="parameter_missing")


def no_such(kind: str, id_: str, *, param: str = "id") -> Refused:
    """An id that names nothing: 404 in a URL, 400 in a parameter."""
    message = f"No such {kind}: '{id_}'"
    return Refused(message, param=param, code="resource_missing", status=404 if param == "id" else 400)


def no_card() -> Refused:
    """A charge without anything to charge."""
    return Refused(
        "This customer has no attached payment source or default payment method. Please consider adding a default "
        "payment method.",
        code="resource_missing",
    )


def declined() -> Refused:
    """A charge that the card's bank refuses."""
    return Refused("Your card was declined.", code="card_declined", kind="card_error", status=402)

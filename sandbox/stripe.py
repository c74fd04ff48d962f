"""Stripe's API, as the sandbox speaks it: authentication, versions, strict parameters, idempotency keys, error shapes.

What happens behind it is `sandbox.billing`'s.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.billing import Account
from sandbox.listing import PAGING
from sandbox.objects import API_VERSION, Record
from sandbox.parameters import Form, check, parse, prepare
from sandbox.refusals import Refused
from sandbox.webhooks import Webhooks
from sandbox.wire import own_path
from sandbox.world import Clock, Ids

_ERRORS = {
    400: ("invalid_request_error", None, "The request was unacceptable."),
    401: ("invalid_request_error", None, "Invalid API Key provided: sk_test_****"),
    402: ("card_error", "card_declined", "Your card was declined."),
    403: ("invalid_request_error", None, "The provided key does not have the required permissions for this endpoint."),
    404: ("invalid_request_error", "resource_missing", "No such customer: 'cus_0'"),
    409: ("idempotency_error", "idempotency_key_in_use", "Another request with this Idempotent Key is in progress."),
    429: ("invalid_request_error", "rate_limit", "Request rate limit exceeded."),
}
_TROUBLE = ("api_error", None, "An unknown error occurred")


@dataclass(frozen=True)
class Operation:
    """One of the API's operations.

    Args:
        method: HTTP method.
        path: URL path; `{id}` is the object's.
        params: Name of the SDK's type of its parameters.
        run: Does it: account, id (empty if the path has none), parameters.
        knows: The parameters that the sandbox acts on.
    """

    method: str
    path: str
    params: str
    run: Callable[[Account, str, Form], Record]
    knows: frozenset[str]


@dataclass(frozen=True, slots=True)
class Saved:
    """The answer to a request with an idempotency key."""

    path: str
    form: Form
    status: int
    body: Record
    request_id: str


class StripeService:
    """Stripe, with one account.

    Args:
        clock: Tells the time.
        webhooks: Takes the account's events.
    """

    def __init__(self, clock: Clock, webhooks: Webhooks) -> None:
        self._clock = clock
        self._webhooks = webhooks
        self._requests = Ids()
        self.reset(Ids())

    def reset(self, ids: Ids) -> None:
        """Starts again with an empty account, whose ids come from `ids`."""
        self.account = Account(self._clock, ids, self._publish)
        self._saved: dict[str | None, Saved] = {}

    def app(self) -> Starlette:
        """The API, from `/v1` on."""
        for each in OPERATIONS:
            prepare(each.params, each.knows)
        routes = [Route(each.path, self._endpoint(each), methods=[each.method]) for each in OPERATIONS]
        return Starlette(routes=routes, exception_handlers={404: _unknown_url, 405: _unknown_url})

    def _endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            request_id = f"req_{self._requests.new('request', 14)}"
            body = (await request.body()).decode(errors="replace")
            try:
                answer = self._answer(operation, request, body, request_id)
            except Refused as refused:
                answer = JSONResponse(_shape(refused), refused.status)
            answer.headers["Request-Id"] = request_id
            answer.headers["Stripe-Version"] = API_VERSION
            return answer

        return endpoint

    def _answer(self, operation: Operation, request: Request, body: str, request_id: str) -> JSONResponse:
        _authenticate(request)
        _check_version(request)
        _check_content_type(request, body)
        form = parse(body or request.url.query)
        key = _key(request) if operation.method == "POST" else None
        if key in self._saved:
            return _answered(_same(self._saved[key], request, form), key, replayed=True)
        checked = check(operation.params, form, knows=operation.knows)
        saved = Saved(own_path(request.scope), form, *self._do(operation, request, checked, request_id), request_id)
        if key is not None:
            self._saved[key] = saved
        return _answered(saved, key)

    def _do(self, operation: Operation, request: Request, form: Form, request_id: str) -> tuple[int, Record]:
        try:
            with self.account.request(request_id, request.headers.get("Idempotency-Key")):
                done = operation.run(self.account, request.path_params.get("id", ""), form)
            return 200, self.account.expanded(done, form.get("expand", []))
        except Refused as refused:
            return refused.status, _shape(refused)

    def _publish(self, event: Record) -> None:
        event["pending_webhooks"] = self._webhooks.count("stripe")
        self._webhooks.send("stripe", json.dumps(event, indent=2).encode(), [event["id"]])


def error(status: int) -> Response:
    """Stripe's answer to an HTTP status, in its own shape."""
    kind, code, message = _ERRORS.get(status, _TROUBLE)
    return JSONResponse(_shape(Refused(message, code=code, kind=kind, status=status)), status)


def _shape(refused: Refused) -> Record:
    about = {"code": refused.code, "param": refused.param}
    if refused.code:
        about["doc_url"] = f"https://stripe.com/docs/error-codes/{refused.code.replace('_', '-')}"
    if refused.kind == "card_error":
        about["decline_code"] = "generic_decline"
    given = {name: value for name, value in about.items() if value is not None}
    return {"error": {**given, "message": refused.message, "type": refused.kind}}


async def _unknown_url(request: Request, _: Exception) -> Response:
    message = f"Unrecognized request URL ({request.method}: {own_path(request.scope)})."
    return JSONResponse(_shape(Refused(message)), HTTPStatus.NOT_FOUND)


def _authenticate(request: Request) -> None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not key:
        raise Refused(
            "You did not provide an API key. You need to provide your API key in the Authorization header, using "
            "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            status=401,
        )
    # A live key has no business here, and is not repeated in the answer.
    if not key.startswith("sk_test_"):
        raise Refused(f"Invalid API Key provided: {key[:8]}****{key[-4:] if len(key) > 20 else ''}", status=401)


def _check_version(request: Request) -> None:
    version = request.headers.get("Stripe-Version", API_VERSION)
    if version != API_VERSION:
        raise Refused(f"Invalid Stripe API version: {version}. The sandbox speaks {API_VERSION} only.")


def _check_content_type(request: Request, body: str) -> None:
    if body and not request.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        raise Refused("Invalid request (check that your POST content type is application/x-www-form-urlencoded).")


def _key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and len(key) > 255:
        raise Refused("Idempotency keys must be at most 255 characters long.", kind="idempotency_error")
    return key


def _same(saved: Saved, request: Request, form: Form) -> Saved:
    path = own_path(request.scope)
    if saved.path != path:
        message = (
            "Keys for idempotent requests can only be used for the same endpoint they were first used for "
            f"('{saved.path}' vs '{path}')."
        )
        raise Refused(message, kind="idempotency_error")
    if saved.form != form:
        message = "Keys for idempotent requests can only be used with the same parameters they were first used with."
        raise Refused(message, kind="idempotency_error")
    return saved


def _answered(saved: Saved, key: str | None, *, replayed: bool = False) -> JSONResponse:
    answer = JSONResponse(saved.body, saved.status)
    if key is not None:
        answer.headers["Idempotency-Key"] = key
        answer.headers["Original-Request"] = saved.request_id
    if replayed:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


def _get(kind: str, params: str) -> Operation:
    return Operation(
        "GET", f"/v1/{kind}s/{{id}}", params, lambda account, id_, _: account.get(kind, id_), frozenset({"expand"})
    )


def _list(kind: str, params: str, *filters: str) -> Operation:
    return Operation(
        "GET", f"/v1/{kind}s", params, lambda account, _, form: account.page(kind, form), PAGING | set(filters)
    )


def _knows(*names: str) -> frozenset[str]:
    return frozenset({"expand", "metadata", *names})


OPERATIONS = (
    Operation(
        "POST", "/v1/customers", "CustomerCreateParams",
        lambda account, _, form: account.create_customer(form),
        _knows("email", "name", "phone", "description", "payment_method", "invoice_settings.default_payment_method"),
    ),
    Operation(
        "POST", "/v1/customers/{id}", "CustomerUpdateParams",
        lambda account, id_, form: account.update_customer(id_, form),
        _knows("email", "name", "phone", "description", "invoice_settings.default_payment_method"),
    ),
    Operation(
        "DELETE", "/v1/customers/{id}", "CustomerDeleteParams",
        lambda account, id_, _: account.delete_customer(id_),
        frozenset(),
    ),
    _get("customer", "CustomerRetrieveParams"),
    _list("customer", "CustomerListParams", "created", "email"),
    Operation(
        "POST", "/v1/payment_methods", "PaymentMethodCreateParams",
        lambda account, _, form: account.create_payment_method(form),
        _knows("type", "card", "billing_details"),
    ),
    Operation(
        "POST", "/v1/payment_methods/{id}/attach", "PaymentMethodAttachParams",
        lambda account, id_, form: account.attach_payment_method(id_, form),
        frozenset({"expand", "customer"}),
    ),
    Operation(
        "POST", "/v1/payment_methods/{id}/detach", "PaymentMethodDetachParams",
        lambda account, id_, _: account.detach_payment_method(id_),
        frozenset({"expand"}),
    ),
    _get("payment_method", "PaymentMethodRetrieveParams"),
    _list("payment_method", "PaymentMethodListParams", "customer", "type"),
    Operation(
        "POST", "/v1/products", "ProductCreateParams",
        lambda account, _, form: account.create_product(form),
        _knows("name", "description"),
    ),
    _get("product", "ProductRetrieveParams"),
    _list("product", "ProductListParams", "created", "active"),
    Operation(
        "POST", "/v1/prices", "PriceCreateParams",
        lambda account, _, form: account.create_price(form),
        _knows("product", "currency", "unit_amount", "nickname", "active", "recurring.interval",
               "recurring.interval_count"),
    ),
    _get("price", "PriceRetrieveParams"),
    _list("price", "PriceListParams", "created", "active", "currency", "product", "type"),
    Operation(
        "POST", "/v1/subscriptions", "SubscriptionCreateParams",
        lambda account, _, form: account.create_subscription(form),
        _knows("customer", "items.price", "items.quantity", "items.metadata", "trial_period_days", "collection_method",
               "days_until_due", "description", "payment_behavior"),
    ),
    Operation(
        "POST", "/v1/subscriptions/{id}", "SubscriptionUpdateParams",
        lambda account, id_, form: account.update_subscription(id_, form),
        _knows("items.id", "items.price", "items.quantity", "items.metadata", "items.deleted", "cancel_at_period_end",
               "description", "days_until_due", "proration_behavior"),
    ),
    Operation(
        "DELETE", "/v1/subscriptions/{id}", "SubscriptionCancelParams",
        lambda account, id_, form: account.cancel_subscription(id_, form),
        frozenset({"expand", "cancellation_details.comment", "cancellation_details.feedback"}),
    ),
    _get("subscription", "SubscriptionRetrieveParams"),
    _list("subscription", "SubscriptionListParams", "created", "customer", "price", "status", "collection_method"),
    Operation(
        "POST", "/v1/invoices", "InvoiceCreateParams",
        lambda account, _, form: account.create_invoice(form),
        _knows("customer", "collection_method", "days_until_due", "description", "currency", "auto_advance"),
    ),
    Operation(
        "POST", "/v1/invoices/{id}/add_lines", "InvoiceAddLinesParams",
        lambda account, id_, form: account.add_lines(id_, form),
        frozenset({"expand", "lines.amount", "lines.description", "lines.quantity", "lines.metadata",
                   "lines.pricing.price"}),
    ),
    Operation(
        "POST", "/v1/invoices/{id}/finalize", "InvoiceFinalizeInvoiceParams",
        lambda account, id_, _: account.finalize_invoice(id_),
        frozenset({"expand"}),
    ),
    Operation(
        "POST", "/v1/invoices/{id}/pay", "InvoicePayParams",
        lambda account, id_, form: account.pay_invoice(id_, form),
        frozenset({"expand", "paid_out_of_band", "payment_method"}),
    ),
    Operation(
        "POST", "/v1/invoices/{id}/void", "InvoiceVoidInvoiceParams",
        lambda account, id_, _: account.void_invoice(id_),
        frozenset({"expand"}),
    ),
    _get("invoice", "InvoiceRetrieveParams"),
    _list("invoice", "InvoiceListParams", "created", "customer", "status", "subscription", "collection_method"),
    _get("event", "EventRetrieveParams"),
    _list("event", "EventListParams", "created", "type", "types"),
)  # fmt: skip

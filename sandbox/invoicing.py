"""An account's invoices: drafts by hand, and those of subscriptions."""

from __future__ import annotations

from sandbox import listing, objects
from sandbox.customers import Customers
from sandbox.ledger import fields, merged
from sandbox.objects import Record
from sandbox.parameters import Form
from sandbox.refusals import Refused, missing


class Invoicing(Customers):
    """The operations on invoices. Arguments: see `Ledger`."""

    def create_invoice(self, form: Form) -> Record:
        """A new draft, without lines."""
        if "customer" not in form:
            raise missing("customer")
        if form.get("collection_method") == "send_invoice" and "days_until_due" not in form:
            raise missing("days_until_due")
        customer = self._living_customer(form["customer"], "customer")
        terms = {
            "currency": form.get("currency") or customer["currency"] or "usd",
            "collection_method": form.get("collection_method", "charge_automatically"),
            "days_until_due": form.get("days_until_due"),
        }
        draft = objects.invoice(self._new("invoice"), customer, terms, [], "manual", self._clock.now())
        draft |= fields(form, "description") | {"metadata": merged({}, form)}
        draft["auto_advance"] = form.get("auto_advance", False)
        return self._keep(draft, "invoice.created")

    def add_lines(self, id_: str, form: Form) -> Record:
        """More lines of a draft: an amount, or a one-time price and a quantity."""
        draft = self.get("invoice", id_)
        if draft["status"] != "draft":
            raise Refused("This invoice is no longer editable", code="invoice_not_editable")
        lines = [self._line(draft, line, f"lines[{index}]") for index, line in enumerate(form["lines"])]
        draft["lines"]["data"] += lines
        draft["lines"]["total_count"] += len(lines)
        total = sum(line["amount"] for line in draft["lines"]["data"])
        return self._change(draft, "invoice.updated", **dict.fromkeys(objects.TOTALS, total))

    def finalize_invoice(self, id_: str) -> Record:
        """Makes a draft an open invoice; one that asks for nothing is paid at once."""
        draft = self.get("invoice", id_)
        if draft["status"] != "draft":
            raise Refused("This invoice is already finalized, you can't re-finalize a non-draft invoice.")
        return self._finalize(draft)

    def pay_invoice(self, id_: str, form: Form) -> Record:
        """Pays an open invoice, by the customer's card, another of its cards, or out of band."""
        invoice = self.get("invoice", id_)
        if invoice["status"] == "draft":
            raise Refused("This invoice is a draft. Finalize it before you pay it.")
        if invoice["status"] != "open":
            raise Refused(f"Invoice is already {invoice['status']}")
        if not form.get("paid_out_of_band"):
            self._charge(invoice, form)
        self._paid(invoice)
        subscription = self._objects["subscription"].get(listing.subscription_of(invoice) or "")
        if subscription and subscription["latest_invoice"] == id_:
            self._settled(subscription)
        return invoice

    def void_invoice(self, id_: str) -> Record:
        """Voids an open invoice, for good."""
        invoice = self.get("invoice", id_)
        if invoice["status"] not in {"open", "uncollectible"}:
            raise Refused("You can only pass in open invoices. This invoice isn't open.")
        transitions = invoice["status_transitions"] | {"voided_at": self._clock.now()}
        return self._change(invoice, "invoice.voided", status="void", status_transitions=transitions)

    # --- helpers ------------------------------------------------------------------------------------------------

    def _finalize(self, draft: Record) -> Record:
        customer = self._objects["customer"][draft["customer"]]
        now = self._clock.now()
        draft.update(
            status="open",
            number=f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04}",
            effective_at=now,
            status_transitions=draft["status_transitions"] | {"finalized_at": now},
        )
        customer["next_invoice_sequence"] += 1
        self._emit("invoice.finalized", draft)
        if draft["amount_due"] == 0 and draft["parent"] is None:
            self._paid(draft)
        return draft

    def _line(self, draft: Record, line: Form, param: str) -> Record:
        price_id = line.get("pricing", {}).get("price")
        if (price_id is None) == ("amount" not in line):
            raise Refused(f"You must specify either `amount` or `pricing[price]` in {param}.", param=param)
        quantity = line.get("quantity", 1)
        price = None if price_id is None else self._one_time_price(price_id, draft, f"{param}[pricing][price]")
        if price is not None:
            line = {"description": self.get("product", price["product"])["name"], **line}
        amount = line["amount"] if price is None else price["unit_amount"] * quantity
        ids = self._new("line_item"), self._new("invoiceitem")
        return objects.manual_line(ids, draft, line, (amount, quantity), price, self._clock.now())

    def _one_time_price(self, id_: str, draft: Record, param: str) -> Record:
        price = self._find("price", id_, param)
        if price["type"] != "one_time":
            message = (
                "The price specified is set to `type=recurring` but this field only accepts prices with "
                "`type=one_time`."
            )
            raise Refused(message, param=param)
        if price["currency"] != draft["currency"]:
            message = (
                f"The price specified only supports `{price['currency']}`. This doesn't match the expected currency: "
                f"`{draft['currency']}`."
            )
            raise Refused(message, param=param)
        return price

    def _settled(self, subscription: Record) -> None:
        if subscription["status"] in {"incomplete", "past_due"}:
            self._change(subscription, "customer.subscription.updated", status="active")

    def _draft(self, subscription: Record, items: list[Record], reason: str, *, free: bool = False) -> Record:
        id_ = self._new("invoice")
        customer = self._objects["customer"][subscription["customer"]]
        lines = [
            objects.line_item(
                self._new("line_item"), id_, item, self.get("product", item["price"]["product"])["name"], free=free
            )
            for item in items
        ]
        invoice = objects.invoice(id_, customer, subscription, lines, reason, self._clock.now())
        return self._keep(invoice, "invoice.created")

    def _paid(self, invoice: Record) -> None:
        invoice.update(
            status="paid",
            amount_paid=invoice["amount_due"],
            amount_remaining=0,
            attempted=True,
            auto_advance=False,
            status_transitions=invoice["status_transitions"] | {"paid_at": self._clock.now()},
        )
        self._emit("invoice.paid", invoice)
        self._emit("invoice.payment_succeeded", invoice)

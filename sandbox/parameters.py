"""Stripe's parameters, held against the types that the official SDK was generated with.

The strictness is the SDK's, not ours: what it knows as a parameter of a call is accepted, in that type; anything
else is refused as Stripe refuses it. A new SDK brings new parameters along.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from typing_extensions import is_typeddict

from sandbox.refusals import Refused, missing

Form = dict[str, Any]


def parse(encoded: str) -> Form:
    """Stripe's form encoding as nested values: `items[0][price]=p` -> {"items": {"0": {"price": "p"}}}.

    Lists stay dicts by index here; `check` makes lists of them where a list belongs.
    """
    form: Form = {}
    for name, value in parse_qsl(encoded, keep_blank_values=True):
        keys = [name.partition("[")[0], *re.findall(r"\[([^\]]*)\]", name)]
        place = form
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise Refused("Invalid object", param=keys[0])
        place[keys[-1] or str(len(place))] = value
    return form


def check(params: str, form: Form, *, knows: frozenset[str]) -> Form:
    """The form's values in their types.

    Args:
        params: Name of the SDK's type: `CustomerCreateParams`.
        form: What `parse` gave.
        knows: The parameters that the sandbox acts on (`items.price`; a name stands for all below it). What Stripe
            knows beyond them is refused, not ignored.

    Raises:
        Refused: As Stripe would.
    """
    values = _record(_shape(params), form, "")
    _refuse_unknown(values, knows, "")
    return values


def prepare(params: str, knows: frozenset[str]) -> None:
    """Reads the SDK's type, so that the first `check` is as quick as the others.

    Raises:
        LookupError: The SDK has no such parameters.
    """
    hints = _hints(_shape(params))
    if strange := {name.partition(".")[0] for name in knows} - hints.keys():
        raise LookupError(f"{params} has no {sorted(strange)}")


def _shape(params: str) -> type:
    import stripe.params

    shape: type = getattr(stripe.params, params)
    return shape


def _refuse_unknown(values: object, knows: frozenset[str], place: str) -> None:
    if isinstance(values, list):
        for each in values:
            _refuse_unknown(each, knows, place)
    elif isinstance(values, dict):
        for name, value in values.items():
            below = f"{place}.{name}" if place else name
            if below not in knows:
                _refuse_unknown(value, knows, below)
    else:
        raise Refused(f"The sandbox does not act on this parameter of Stripe's: {place}", param=place)


@dataclass(frozen=True, slots=True)
class _Hint:
    """A type of the SDK, taken apart: what a value may be."""

    scalars: tuple[type, ...]
    choices: tuple[str, ...]
    item: Any
    value: Any
    record: type | None
    clearable: bool


def _record(shape: type, form: Form, path: str) -> Form:
    hints = _hints(shape)
    for name in form:
        if name not in hints:
            raise Refused(
                f"Received unknown parameter: {_join(path, name)}",
                param=_join(path, name),
                code="parameter_unknown",
            )
    for name in sorted(getattr(shape, "__required_keys__", ())):
        if name not in form:
            raise missing(_join(path, name))
    return {name: _value(hints[name], value, _join(path, name)) for name, value in form.items()}


def _value(hint: _Hint, value: object, path: str) -> object:
    if isinstance(value, dict):
        return _nested(hint, value, path)
    if value == "" and hint.clearable:
        return ""
    if value in hint.choices:
        return value
    if not hint.scalars and not hint.choices:
        raise Refused("Invalid array" if hint.item else "Invalid object", param=path)
    if value == "":
        raise Refused(
            f"You passed an empty string for '{path}'. We assume empty values are an attempt to unset a parameter; "
            f"however '{path}' cannot be unset. You should remove '{path}' from your request or supply a non-empty "
            "value.",
            param=path,
            code="parameter_invalid_empty",
        )
    return _scalar(hint, value, path)


def _nested(hint: _Hint, value: Form, path: str) -> object:
    if hint.record is not None:
        return _record(hint.record, value, path)
    if hint.value is not None:
        each = _take_apart(hint.value)  # an empty value unsets a key
        return {key: text and _value(each, text, _join(path, key)) for key, text in value.items()}
    if hint.item is not None and all(key.isdigit() for key in value):
        item = _take_apart(hint.item)
        return [_value(item, value[key], _join(path, key)) for key in sorted(value, key=int)]
    kind = hint.scalars[0].__name__ if hint.scalars else "array"
    raise Refused(f"Invalid {'string' if kind == 'str' else kind}: {value}", param=path)


def _scalar(hint: _Hint, value: object, path: str) -> object:
    for kind in hint.scalars:
        if (made := _MAKE[kind](value)) is not None:
            return made
    if hint.choices:
        known = f"{', '.join(hint.choices[:-1])} or {hint.choices[-1]}" if hint.choices[1:] else hint.choices[0]
        raise Refused(f"Invalid {path}: must be one of {known}", param=path)
    name = _NAMES[hint.scalars[0]]
    raise Refused(f"Invalid {name}: {value}", param=path, code=f"parameter_invalid_{name}")


def _whole(value: str) -> int | None:
    return int(value) if re.fullmatch(r"-?\d+", value) else None


def _decimal(value: str) -> Decimal | None:
    try:
        return Decimal(value)
    except InvalidOperation:
        return None


_MAKE: Mapping[type, Any] = {
    int: _whole,
    float: _decimal,
    Decimal: _decimal,
    bool: {"true": True, "false": False}.get,
    str: str,
}
_NAMES = {int: "integer", float: "decimal", Decimal: "decimal", bool: "boolean", str: "string"}


@cache
def _hints(shape: type) -> dict[str, _Hint]:
    from stripe._request_options import RequestOptions  # the SDK's own options, not Stripe's parameters

    # Names that the SDK imports for type checkers only.
    names = {"StripeContext": object, "Mapping": Mapping}
    hints = typing.get_type_hints(shape, localns=names)
    return {name: _take_apart(hint) for name, hint in hints.items() if name not in RequestOptions.__annotations__}


def _take_apart(hint: object) -> _Hint:
    members = _members(hint)
    literals = [
        value for each in members if typing.get_origin(each) is typing.Literal for value in typing.get_args(each)
    ]
    choices = tuple(value for value in literals if value != "")
    scalars = tuple(kind for kind in _MAKE if kind in members)
    lists = [typing.get_args(each)[0] for each in members if typing.get_origin(each) is list]
    dicts = [typing.get_args(each)[1] for each in members if typing.get_origin(each) is dict]
    records = [each for each in members if is_typeddict(each)]
    return _Hint(
        # `Literal[...] | str`: the SDK leaves room for choices of later versions, Stripe's API of today does not.
        scalars=tuple(kind for kind in scalars if kind is not str) if choices else scalars,
        choices=choices,
        item=next(iter(lists), None),
        value=next(iter(dicts), None),
        record=next(iter(records), None),
        clearable="" in literals,
    )


def _members(hint: object) -> list[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [member for each in typing.get_args(hint) for member in _members(each)]
    return [hint]


def _join(path: str, name: str) -> str:
    return f"{path}[{name}]" if path else name

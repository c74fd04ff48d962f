"""A schema registry that speaks Confluent's protocol: the schemas that records name by a number.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any
from urllib.parse import quote

from errors import IntegrationError
from integrations.exchange import Refusal, Response
from integrations.http import HttpClient

_ACCEPT = {"Accept": "application/vnd.schemaregistry.v1+json"}
_NO_SCHEMA = 404
_UNKNOWN_FOR, _MOST_UNKNOWN = 10.0, 1000
"""Seconds for which a number that has no schema is not asked for again; and how many such numbers are known."""

_SERIALIZED = "?format=serialized"
"""Asks for Protobuf's schemas compiled, so that nobody needs its compiler."""

Schema = dict[str, Any]
"""A schema of Avro as `fastavro` has parsed it."""


class SchemaRegistry:
    """Schemas by their number; one that is there is known for good, since none ever changes.

    Args:
        client: Calls it.
    """

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._known: dict[int, Any] = {}
        self._unknown: dict[int, float] = {}

    def avro(self, number: int) -> Schema | None:
        """A schema of Avro, with those that it refers to; None if there is none of this number.

        Raises:
            IntegrationError: The registry does not answer, or the schema is not one of Avro's.
        """
        schema: Schema | None = self._once(number, "", lambda answer: self._avro(answer, {}))
        return schema

    def protobuf(self, number: int) -> Any:  # noqa: ANN401  (protobuf's descriptors have no useful types)
        """The descriptor of a file of Protobuf, with those that it imports; None if there is none of this number.

        Raises:
            IntegrationError: The registry does not answer, or the schema is not one of Protobuf's.
        """
        return self._once(number, _SERIALIZED, lambda answer: self._protobuf(answer, number))

    def close(self) -> None:
        """Frees the connections."""
        self._client.close()

    def _once(self, number: int, form: str, parse: Callable[[Response], Any]) -> Any:  # noqa: ANN401
        if number not in self._known and self._unknown.get(number, 0.0) <= time.monotonic():
            answer = self._client.get(f"schemas/ids/{number}{form}", headers=_ACCEPT, accept={200, _NO_SCHEMA})
            if answer.status == _NO_SCHEMA:
                self._remember_unknown(number)
            else:
                self._known[number] = parse(answer)
        return self._known.get(number)

    def _remember_unknown(self, number: int) -> None:
        """Somebody may register it at any time; and damaged records name any number."""
        if len(self._unknown) >= _MOST_UNKNOWN:
            self._unknown.clear()
        self._unknown[number] = time.monotonic() + _UNKNOWN_FOR

    def _reference(self, other: Mapping[str, Any], form: str = "") -> Response:
        place = f"subjects/{quote(other['subject'], safe='')}/versions/{other['version']}{form}"
        return self._client.get(place, headers=_ACCEPT)

    # --- Avro

    def _avro(self, answer: Response, named: dict[str, Any]) -> Schema:
        from fastavro import parse_schema
        from fastavro.schema import SchemaParseException, UnknownType

        told = _of(answer, "AVRO")
        for other in told.get("references", ()):
            self._avro(self._reference(other), named)
        try:
            parsed = parse_schema(json.loads(told["schema"]), named_schemas=named)
        except (ValueError, SchemaParseException, UnknownType) as error:
            raise _error(f"no schema of Avro: {error}", answer) from None
        return parsed if isinstance(parsed, dict) else {"type": parsed}

    # --- Protobuf

    def _protobuf(self, answer: Response, number: int) -> Any:  # noqa: ANN401
        from google.protobuf.descriptor_pool import DescriptorPool

        pool, name = DescriptorPool(), f"schema-{number}.proto"
        self._add(pool, answer, name, set())
        return pool.FindFileByName(name)

    def _add(self, pool: Any, answer: Response, name: str, added: set[str]) -> None:  # noqa: ANN401
        """Adds a file to a pool, after those that it imports."""
        from google.protobuf.descriptor_pb2 import FileDescriptorProto
        from google.protobuf.message import DecodeError

        told = _of(answer, "PROTOBUF")
        for other in told.get("references", ()):
            if other["name"] not in added:
                added.add(other["name"])
                self._add(pool, self._reference(other, _SERIALIZED), other["name"], added)
        try:
            file = FileDescriptorProto.FromString(base64.b64decode(told["schema"], validate=True))
            file.name = name
            for imported in file.dependency:
                if imported.startswith("google/protobuf/") and imported not in added:
                    added.add(imported)
                    pool.AddSerializedFile(_well_known(imported))
            pool.Add(file)
        except (ValueError, TypeError, DecodeError, ImportError) as error:
            raise _error(f"no schema of Protobuf, compiled: {error}", answer) from None


def refusal(answer: Response) -> Refusal | None:
    """What the registry says about a call that it refused: `{"error_code": 40403, "message": ...}`."""
    try:
        told = answer.data
    except ValueError:
        return None
    if not isinstance(told, dict) or "error_code" not in told:
        return None
    return Refusal(str(told.get("message", "")), str(told["error_code"]), "check `url` and `auth` under `registry`")


def _of(answer: Response, kind: str) -> Mapping[str, Any]:
    """What the registry says of a schema, which must be of a kind."""
    told: Mapping[str, Any] = answer.data
    if (other := told.get("schemaType", "AVRO")) != kind:
        raise _error(f"a schema of {other}, not of {kind}", answer)
    return told


def _well_known(file: str) -> bytes:
    """A file that comes with Protobuf: google/protobuf/timestamp.proto."""
    module = import_module(file.removesuffix(".proto").replace("/", ".") + "_pb2")
    compiled: bytes = module.DESCRIPTOR.serialized_pb
    return compiled


def _error(what: str, answer: Response) -> IntegrationError:
    return IntegrationError(f"{answer.url} is {what}", service="schema registry", operation="schemas.get")

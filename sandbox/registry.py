"""A schema registry: what a producer registers and a consumer asks for, by Confluent's protocol.

Strict: a schema must be one of Avro, and a later one of a subject must be able to read what the one before has written;
or one of Protobuf, compiled, which is given compiled only (`format=serialized`).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

USER, PASSWORD = "registry", "sandbox-registry-password"
"""Whom it knows."""


@dataclass
class SchemaRegistryService:
    """The registry."""

    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)

    def reset(self) -> None:
        """Forgets all."""
        self.schemas.clear()
        self.subjects.clear()

    def app(self) -> Starlette:
        """Its routes."""
        return Starlette(
            routes=[
                Route("/subjects/{subject:path}/versions", self._register, methods=["POST"]),
                Route("/subjects/{subject:path}/versions/{version:int}", self._version),
                Route("/schemas/ids/{number:int}", self._schema),
            ]
        )

    def register(self, subject: str, schema: Any, references: Any = ()) -> int:  # noqa: ANN401  (a schema is JSON)
        """Keeps a schema; one that is there already keeps its number.

        Args:
            subject: What it is of: `orders-value`.
            schema: The schema.
            references: Others that it names: name, subject, version.

        Raises:
            ValueError: It is not one of Avro, or cannot read what the subject's last one has written.
        """
        told = {"schema": json.dumps(schema), **({"references": list(references)} if references else {})}
        self._check(subject, told)
        return self._keep(subject, told)

    def register_protobuf(self, subject: str, file: bytes, references: Any = ()) -> int:  # noqa: ANN401
        """Keeps a file of Protobuf.

        Args:
            subject: What it is of.
            file: Its `FileDescriptorProto`.
            references: Others that it imports: name, subject, version.
        """
        schema = base64.b64encode(file).decode()
        told = {"schemaType": "PROTOBUF", "schema": schema, **({"references": list(references)} if references else {})}
        return self._keep(subject, told)

    def _keep(self, subject: str, told: dict[str, Any]) -> int:
        number = next((number for number, known in self.schemas.items() if known == told), len(self.schemas) + 1)
        self.schemas[number] = told
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def _check(self, subject: str, told: dict[str, Any]) -> None:
        from fastavro import parse_schema
        from fastavro.schema import SchemaParseException, UnknownType

        try:
            schema = self._parsed(told, {})
        except (SchemaParseException, UnknownType) as error:
            raise ValueError(f"Invalid schema: {error}") from None
        if not self.subjects.get(subject):
            return
        before = parse_schema(json.loads(self.schemas[self.subjects[subject][-1]]["schema"]))
        if wrong := _unreadable(before, schema):
            raise ValueError(f"Schema being registered is incompatible with an earlier schema: {wrong}")

    def _parsed(self, told: dict[str, Any], named: dict[str, Any]) -> Any:  # noqa: ANN401
        from fastavro import parse_schema

        for other in told.get("references", ()):
            self._parsed(self.schemas[self.subjects[other["subject"]][other["version"] - 1]], named)
        return parse_schema(json.loads(told["schema"]), named_schemas=named)

    async def _register(self, request: Request) -> Response:
        if refused := _refused(request):
            return refused
        told = await request.json()
        try:
            schema = json.loads(told["schema"])
            number = self.register(request.path_params["subject"], schema, told.get("references", ()))
        except ValueError as wrong:
            incompatible = "incompatible" in str(wrong)
            return _error(409 if incompatible else 422, 409 if incompatible else 42201, str(wrong))
        return JSONResponse({"id": number})

    async def _version(self, request: Request) -> Response:
        if refused := _refused(request):
            return refused
        subject, version = request.path_params["subject"], request.path_params["version"]
        versions = self.subjects.get(subject, [])
        if not 1 <= version <= len(versions):
            return _error(404, 40401 if not versions else 40402, f"Subject '{subject}' or its version was not found.")
        number = versions[version - 1]
        if refused := self._not_compiled(request, number):
            return refused
        return JSONResponse({"subject": subject, "version": version, "id": number, **self.schemas[number]})

    async def _schema(self, request: Request) -> Response:
        if refused := _refused(request):
            return refused
        number = request.path_params["number"]
        if number not in self.schemas:
            return _error(404, 40403, f"Schema {number} not found")
        return self._not_compiled(request, number) or JSONResponse(self.schemas[number])

    def _not_compiled(self, request: Request, number: int) -> Response | None:
        compiled = request.query_params.get("format") == "serialized"
        if self.schemas[number].get("schemaType") == "PROTOBUF" and not compiled:
            return _error(501, 501, "The sandbox has schemas of Protobuf compiled only: ask for format=serialized")
        return None


def error(status: int) -> Response:
    """Its answer to an HTTP status, in its own shape."""
    return _error(status, status, "Error")


def _refused(request: Request) -> Response | None:
    expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    if request.headers.get("Authorization") != f"Basic {expected}":
        return _error(401, 401, "Unauthorized")
    return None


def _error(status: int, code: int, message: str) -> Response:
    return JSONResponse({"error_code": code, "message": message}, status)


def _unreadable(before: Any, schema: Any) -> str:  # noqa: ANN401  (a schema is JSON)
    """Why a record that was written before cannot be read, if it cannot: a field that is new has no default."""
    if not isinstance(before, dict) or not isinstance(schema, dict):
        return ""
    known = {each["name"] for each in before.get("fields", ())}
    new = [each["name"] for each in schema.get("fields", ()) if each["name"] not in known and "default" not in each]
    return f"the field {new[0]} is new and has no default" if new else ""

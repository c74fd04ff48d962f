"""SendGrid's dynamic templates and their versions, in SendGrid's words.

A template is what mails refer to; its active version is what they look like.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypedDict, cast
from urllib.parse import parse_qs, quote, urlsplit

from integrations.sendgrid.client import Client

_PAGE = 200
_LOOK = "it may have been made: look for its name with templates.list() before it is made again"


class Version(TypedDict, total=False):
    """A version of a template, as SendGrid shows it; lists leave out the content.

    https://www.twilio.com/docs/sendgrid/api-reference/transactional-templates-versions
    """

    id: str
    template_id: str
    name: str
    subject: str
    active: int
    html_content: str
    plain_content: str
    generate_plain_content: bool
    test_data: str
    editor: str
    updated_at: str


class VersionParams(TypedDict, total=False):
    """What can be said of a version; `html_content` is Handlebars: `Hello {{name}}`."""

    name: str
    subject: str
    active: int
    html_content: str
    plain_content: str
    generate_plain_content: bool
    test_data: str
    editor: str


class Template(TypedDict):
    """A template, as SendGrid shows it."""

    id: str
    name: str
    generation: str
    updated_at: str
    versions: list[Version]


class Templates:
    """SendGrid's templates. Methods raise `SendGridIntegrationError` if SendGrid refuses or cannot be reached."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @cached_property
    def versions(self) -> Versions:
        """The versions of templates."""
        return Versions(self._client)

    def create(self, name: str) -> Template:
        """Creates a dynamic template; it has no version yet.

        Args:
            name: At most 100 characters.
        """
        asked = {"name": name, "generation": "dynamic"}
        made = self._client.ask("templates.create", "post", "templates", body=asked, unsure=_LOOK, holds="id").data
        self._client.tell("template.created", ("template", made["id"]), {}, key=f"template.created/{made['id']}")
        return cast(Template, made)

    def update(self, id_: str, name: str) -> Template:
        """Renames a template.

        Args:
            id_: The template's id (`d-...`).
            name: At most 100 characters.
        """
        changed = self._client.ask("templates.update", "patch", _path(id_), body={"name": name}, holds="id").data
        self._client.tell("template.updated", ("template", id_), {})
        return cast(Template, changed)

    def delete(self, id_: str) -> None:
        """Deletes a template with its versions; mails that refer to it are not delivered any more.

        Args:
            id_: The template's id (`d-...`).
        """
        self._client.ask("templates.delete", "delete", _path(id_))
        self._client.tell("template.deleted", ("template", id_), {})

    def get(self, id_: str) -> Template:
        """A template with its versions.

        Args:
            id_: The template's id (`d-...`).
        """
        return cast(Template, self._client.ask("templates.get", "get", _path(id_), holds="id").data)

    def list(self) -> Iterator[Template]:
        """Every dynamic template; read page by page."""
        asked: dict[str, Any] = {"generations": "dynamic", "page_size": _PAGE}
        while True:
            page = self._client.ask("templates.list", "get", "templates", query=asked, holds="result").data
            yield from page["result"]
            following = parse_qs(urlsplit(page.get("_metadata", {}).get("next") or "").query).get("page_token")
            if following is None:
                return
            asked["page_token"] = following[0]


class Versions:
    """Versions of templates. Methods raise `SendGridIntegrationError` if SendGrid refuses or cannot be reached."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, template_id: str, params: VersionParams) -> Version:
        """Creates a version; a template's first one is active at once.

        Args:
            template_id: The template's id (`d-...`).
            params: In SendGrid's words: `{"name": "v2", "subject": "Welcome", "html_content": "Hello {{name}}",
                "active": 1}`; name and subject have to be there.
        """
        path = f"{_path(template_id)}/versions"
        made = self._client.ask("templates.versions.create", "post", path, body=params, unsure=_LOOK, holds="id").data
        self._tell("template.version_created", made, key=f"template.version_created/{made['id']}")
        return cast(Version, made)

    def update(self, template_id: str, id_: str, params: VersionParams) -> Version:
        """Changes a version.

        Args:
            template_id: The template's id (`d-...`).
            id_: The version's id.
            params: What changes, in SendGrid's words.
        """
        path = _path(template_id, id_)
        changed = self._client.ask("templates.versions.update", "patch", path, body=params, holds="id").data
        self._tell("template.version_updated", changed)
        return cast(Version, changed)

    def activate(self, template_id: str, id_: str) -> Version:
        """Makes a version the one that mails look like.

        Args:
            template_id: The template's id (`d-...`).
            id_: The version's id.
        """
        path = f"{_path(template_id, id_)}/activate"
        active = self._client.ask("templates.versions.activate", "post", path, holds="id").data
        self._tell("template.version_activated", active)
        return cast(Version, active)

    def delete(self, template_id: str, id_: str) -> None:
        """Deletes a version.

        Args:
            template_id: The template's id (`d-...`).
            id_: The version's id.
        """
        self._client.ask("templates.versions.delete", "delete", _path(template_id, id_))
        self._tell("template.version_deleted", {"template_id": template_id, "id": id_})

    def get(self, template_id: str, id_: str) -> Version:
        """A version with its content.

        Args:
            template_id: The template's id (`d-...`).
            id_: The version's id.
        """
        return cast(
            Version, self._client.ask("templates.versions.get", "get", _path(template_id, id_), holds="id").data
        )

    def _tell(self, what: str, version: dict[str, Any], *, key: str | None = None) -> None:
        self._client.tell(what, ("template", version["template_id"]), {"version_id": version["id"]}, key=key)


def _path(template_id: str, version_id: str | None = None) -> str:
    path = f"templates/{quote(template_id, safe='')}"
    return path if version_id is None else f"{path}/versions/{quote(version_id, safe='')}"

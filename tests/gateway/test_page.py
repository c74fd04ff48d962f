"""What docs/webhooks.md says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.declared import declared
from gateway.providers import providers
from settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/webhooks.md").read_text()
VARIABLES = sorted(set(re.findall(r"PIVOTAL_([A-Z_]+)", PAGE)))


@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_that_the_page_names_is_a_setting(variable: str) -> None:
    assert variable.lower() in Settings.model_fields


def test_the_page_names_each_address() -> None:
    paths = [provider.path for provider in providers(Settings())]

    assert len(paths) == 6
    assert [path for path in paths if f"| `{path}` |" not in PAGE] == []


def test_each_secret_of_the_receiver_is_on_the_page() -> None:
    of_receivers = [
        name for name in Settings.model_fields if re.search(r"webhook_(secrets|keys|tokens)|watch|inbound", name)
    ]

    assert len(of_receivers) == 8
    assert [name for name in of_receivers if f"PIVOTAL_{name.upper()}" not in PAGE] == []


def test_the_senders_that_the_page_declares_have_no_mistake(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "webhooks.yaml").write_text(shown)

    assert list(declared(tmp_path)) == ["billing", "github", "tools"]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([a-z_/]*\.md)?#", PAGE)) - {""}))
def test_the_pages_that_it_links_to_exist(link: str) -> None:
    assert (ROOT / "docs" / link).exists()


@pytest.mark.parametrize("page", ["webhooks.md"])
def test_the_headings_that_it_links_to_exist(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([a-z_/]*\.md)?#([a-z0-9-]+)\)", PAGE):
        headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / (target or page)).read_text(), re.MULTILINE)
        anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert anchor in anchors, f"{target}#{anchor}"

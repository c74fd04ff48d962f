"""The pipelines that the documentation shows are pipelines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from etl.loader import check

ROOT = Path(__file__).parents[1]
SHOWN = [
    (page, number, text)
    for page in ("README.md", "docs/pipelines.md")
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL), 1)
]
(SCHEMA,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/pipelines.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(("page", "number", "text"), SHOWN, ids=[f"{page}-{number}" for page, number, _ in SHOWN])
def test_a_pipeline_in_the_documentation_has_no_mistake(page: str, number: int, text: str, project: Path) -> None:
    for path in re.findall(r"schema: (\S+\.py):", text):
        (project / path).parent.mkdir(parents=True)
        (project / path).write_text(SCHEMA)
    file = project / "shown.yaml"
    file.write_text(text)
    assert check([file]) == [], f"{page}, example {number}"


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())]
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []

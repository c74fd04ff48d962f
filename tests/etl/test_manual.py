from __future__ import annotations

import re
from pathlib import Path

from etl.manual import manual

PAGE = Path(__file__).parents[2] / "docs/reference/pipeline.md"


def test_the_published_reference_has_every_key_as_it_is() -> None:
    assert PAGE.read_text() == manual(), "run: python -m etl.manual > docs/reference/pipeline.md"


def test_every_key_says_what_it_is_or_leads_to_the_section_that_does() -> None:
    silent = [line for line in manual().splitlines() if re.fullmatch(r"\| `\w+` \|.*\|  \|", line)]
    assert [line for line in silent if "`type`" not in line and "](#" not in line] == []


def test_every_link_of_the_reference_leads_to_one_of_its_sections() -> None:
    page = manual()
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", page)) <= sections

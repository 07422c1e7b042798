"""Every code that can be raised is on the page of error codes, with a text or with what to do."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PLACES = (re.compile(r'\bcode="([A-Z][A-Z0-9_]+)"'), re.compile(r'\bdefault_code\b[^=\n]*= "([A-Z][A-Z0-9_]+)"'))


@pytest.fixture(scope="module")
def page() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("error_codes", ROOT / "docs/error_codes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (.*) \|$", module.page(), re.MULTILINE))


def test_every_code_in_the_source_is_on_the_page(page: dict[str, str]) -> None:
    files = [file for folder in ("components", "pipelines") for file in (ROOT / folder).rglob("*.py")]
    raised = {code for file in files for place in _PLACES for code in place.findall(file.read_text(encoding="utf-8"))}
    assert len(raised) > 200
    assert raised - page.keys() == set()


@pytest.mark.parametrize(
    "code",
    # Of a table, by a helper, by a constant, of a class, of a finding, of the command line, of a condition.
    [
        *("NO_ACCESS", "WRONG_ENDPOINT", "NOTHING_TO_ASK", "UNREACHABLE", "CRC_MISMATCH", "UNEXPECTED", "BAD_USAGE"),
        *("OTHER_CHECKPOINTS", "STEP_KILLED", "NOT_FOR_ENGINE", "WRONG_FORMAT", "ENDPOINT_DIFFERS", "SCHEDULE_GONE"),
        *("NOT_LOCAL", "IMAGE_WITHOUT_GPU", "ACCELERATOR_ENDED", "BAD_INPUT", "NO_MACHINE_FITS"),
    ],
)
def test_a_code_is_found_however_it_is_raised(page: dict[str, str], code: str) -> None:
    assert code in page


def test_each_code_says_something(page: dict[str, str]) -> None:
    assert [code for code, cells in page.items() if not cells.replace("|", "").strip()] == []


def test_nothing_else_is_taken_for_a_code(page: dict[str, str]) -> None:
    assert not [code for code in page if code.startswith(("NVIDIA_", "AIP_", "TF_", "DT_", "SERVEGRAPH_"))]

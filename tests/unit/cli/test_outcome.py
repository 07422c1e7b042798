"""How a verb ends that could not say all it had to."""

from __future__ import annotations

import json

import click
import pytest

from servegraph_pipelines.cli.outcome import report_error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, click.Abort])
def test_an_interruption_is_a_document_too(kind: type[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    assert report_error(kind(), as_json=True) == 130
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["code"] == "INTERRUPTED"
    assert shown.err == "Interrupted.\n"

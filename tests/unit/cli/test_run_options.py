"""Options of `run` that would do nothing are refused before anything runs."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from servegraph_pipelines.cli.group import app


def test_a_network_of_containers_without_containers(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["run", "--output-dir", str(out), "--docker-network", "none", "--param", "seed=x"])
    assert (done.exit_code, out.exists()) == (2, False)
    assert "give --runner docker as well" in done.output

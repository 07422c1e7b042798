"""`servegraph choose` and the component, on real directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.bad_models.build import graph, node, placeholder, string_constant, write
from tests.bad_models.build import saved_model as saved_model_of
from tests.emulators.gcs import FakeGcs
from tests.tiny_models import saved_model, write_tiny_model

MB = 10**6


def servegraph(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of exactly 500 MB, most of which is a hole in a file."""
    directory = write_tiny_model(tmp_path / "model")
    shard = directory / "variables/variables.data-00000-of-00001"
    shard.touch()
    rest = 500 * MB - sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    os.truncate(shard, rest)
    return directory


def test_of_a_frozen_graph_the_copies_count(tmp_path: Path) -> None:
    """Loading 200 MB of constants took 5.3 times as much."""
    nodes = [placeholder(), string_constant("weights", bytes(40 * MB)), node("y", "Identity", ("x",))]
    write(tmp_path / "model", saved_model_of(graph(nodes)))
    decision = json.loads(servegraph("choose", tmp_path / "model", "--platform", "kserve", "--json").stdout)
    assert decision["memory_bytes"] == pytest.approx(1.2 * 5.3 * 40 * MB, rel=0.01)


def test_the_whole_directory_is_measured(model: Path) -> None:
    done = servegraph("choose", model, "--platform", "ai-platform", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["model_bytes"], record["machine_type"]) == (500 * MB, "mls1-c1-m2")
    (model / "assets.extra").mkdir()
    (model / "assets.extra/one").write_text("1")
    record = json.loads(servegraph("choose", model, "--platform", "ai-platform", "--json").stdout)
    assert (record["model_bytes"], record["machine_type"]) == (500 * MB + 1, "n1-highcpu-2")


def test_the_text_says_why(model: Path) -> None:
    """Of a GPU whose support has no end, and a platform that has ended: it says the same on any day."""
    done = servegraph("choose", model, "--memory", "7.6GB", "--accelerator", "V100")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("n1-highmem-2 with 1 x NVIDIA_TESLA_V100 (2 vCPU, 13.0 GB) on vertex\n")
    for part in ("500 MB on disk, 7.60 GB of memory (measured)", "2.989 USD"):
        assert part in done.stdout
    assert "n1-standard-2   has 7.5 GB of memory; the model needs 7.60 GB" in done.stdout
    assert "warning PLATFORM_ENDED" in servegraph("choose", model, "--platform", "ai-platform").stdout


def test_a_refusal_is_exit_code_1_and_one_json_document(model: Path) -> None:
    done = servegraph("choose", model, "--memory", "209GB", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "NO_MACHINE_FITS"
    assert done.stderr.startswith("error NO_MACHINE_FITS: The model needs 209 GB")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--platform", "sagemaker"], "UNKNOWN_PLATFORM"),
        (["--accelerator", "H9000"], "UNKNOWN_ACCELERATOR"),
        (["--memory", "lots"], "BAD_SIZE"),
        (["--granted-quota", "-1GB"], "BAD_SIZE"),
        (["--latency-goal-ms", "0"], "BAD_NUMBER"),
        (["--measured", "/none.json"], "NOT_FOUND"),
        (["--target-rate", "-1"], "above 0, or leave it out"),
    ],
)
def test_bad_input_is_exit_code_2(model: Path, arguments: list[str], code: str) -> None:
    done = servegraph("choose", model, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert code in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "says"), [({"format": 1}, "it has no 'peak_memory_bytes'"), ([], "it has no 'format'")]
)
def test_a_file_that_is_no_measurement_is_named_with_what_it_lacks(
    model: Path, tmp_path: Path, content: object, says: str
) -> None:
    file = tmp_path / "measured.json"
    file.write_text(json.dumps(content))
    done = servegraph("choose", model, "--measured", file)
    assert done.returncode == 2
    assert f"error BAD_MEASUREMENT: {file} is not a measurement: {says}" in done.stderr


def test_no_model_there(tmp_path: Path) -> None:
    assert servegraph("choose", tmp_path / "missing").returncode == 2


def test_a_model_on_cloud_storage(tmp_path: Path) -> None:
    with FakeGcs() as fake:
        fake.put("bucket", "m/saved_model.pb", saved_model())
        done = servegraph("choose", "gs://bucket/m", "--json", STORAGE_EMULATOR_HOST=fake.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model_bytes"] == len(saved_model())


def test_nothing_heavy_is_imported(model: Path) -> None:
    script = (
        "import sys; from servegraph_pipelines.cli import app\n"
        f"app.main(['choose', {str(model)!r}, '--json'], standalone_mode=False)\n"
        "heavy = ('tensorflow', 'kfp', 'google.cloud.storage', 'numpy', 'rich')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == "[]\n"


class TestComponent:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Iterator[Any]:
        from kfp import dsl

        from servegraph.choose_machine.component import choose_machine

        def run(**wishes: Any) -> tuple[Any, dict[str, Any]]:
            decision = dsl.Artifact(uri=str(tmp_path / "decision"))
            decision.path = str(tmp_path / "decision")
            chosen = choose_machine.python_func(decision=decision, **wishes)
            return chosen, json.loads((tmp_path / "decision").read_text())

        return run

    def test_nothing_asked(self, run: Any) -> None:
        chosen, record = run(model_bytes=3 * MB)
        assert chosen.machine_type == "n1-standard-2"
        assert (chosen.accelerator_type, chosen.accelerator_count, chosen.price_per_hour) == ("", 0, 0.1095)
        assert (chosen.tags, chosen.warnings) == (["serve"], [])
        assert record["memory_bytes"] == 3.6 * MB
        assert record["price_per_hour"] == 0.1095

    def test_everything_asked(self, run: Any) -> None:
        chosen, record = run(
            model_bytes=12_000 * MB,
            memory_bytes=10_000 * MB,
            platform="ai-platform",
            granted_model_bytes=20_000 * MB,
            latency_goal_ms=10.0,
            measured_latency_ms=20.0,
            tag_sets=[["serve"], ["serve", "gpu"]],
        )
        assert (chosen.machine_type, chosen.accelerator_count, chosen.price_per_hour) == (
            "n1-highmem-2",
            1,
            0.0,
        )
        assert chosen.tags == ["serve", "gpu"]
        assert record["price_per_hour"] is None
        assert [warning.split(":")[0] for warning in chosen.warnings][:2] == ["PLATFORM_ENDED", "NEEDS_QUOTA"]

    def test_local_reads_this_machine(self, run: Any) -> None:
        chosen, record = run(model_bytes=1, platform="local")
        assert chosen.machine_type == "local"
        assert record["vcpus"] >= 1

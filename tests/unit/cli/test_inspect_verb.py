"""`servegraph inspect` as a process, and the component: exit codes, one JSON document, one page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny_models import saved_model, write_tiny_model

MODELS = Path(__file__).parents[2] / "real_models"


def servegraph(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_sound_model() -> None:
    done = servegraph("inspect", MODELS / "keras_dense", "--verify")
    assert done.returncode == 0
    assert "serving_default" in done.stdout
    assert done.stderr == ""


def test_the_list_of_the_largest_says_of_how_many() -> None:
    assert "the 5 largest of 8;" in servegraph("inspect", MODELS / "v1_adam").stdout
    few = servegraph("inspect", MODELS / "jax2tf_mlp").stdout
    assert "Variables" in few and "largest of" not in few


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODELS / "module", model)
    Path(os.fsdecode(os.fsencode(model / "assets") + b"/\xff")).touch()
    done = servegraph("inspect", model, "--json", "--html", tmp_path / "report.html")
    assert done.returncode == 0
    assert "UNUSED_ASSET" in {item["code"] for item in json.loads(done.stdout)["findings"]}
    assert "\\udcff" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_name_in_a_model_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    hostile = "serving\x1b[2J\x1b]0;owned\x07\x9b2K\u202e\rx\nNothing found wrong"
    (model / "saved_model.pb").write_bytes(saved_model(inputs={hostile: ("float32", [None])}, name=hostile))
    done = servegraph("inspect", model)
    assert all(character.isprintable() for character in done.stdout.replace("\n", ""))
    assert r"serving\u001b[2J\u001b]0;owned\u0007\u009b2K\u202e\u000dx\nNothing found wrong" in done.stdout
    assert "Nothing found wrong" not in [line.strip() for line in done.stdout.splitlines()]
    document = servegraph("inspect", model, "--json").stdout
    assert all(character.isprintable() for character in document.replace("\n", ""))
    assert hostile in json.loads(document)["meta_graphs"][0]["signatures"]


def test_json_is_the_only_output_and_an_error_is_exit_1(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = servegraph("inspect", MODELS / "unsafe", "--json", "--html", page)
    assert done.returncode == 1
    assert {item["code"] for item in json.loads(done.stdout)["findings"]} >= {"UNSAFE_OP"}
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere"], "NOT_FOUND", "no such file"),
        ([MODELS], "NOT_A_SAVED_MODEL", "directories below"),
        ([MODELS / "module/saved_model.pb"], "NOT_A_SAVED_MODEL", "Give the directory"),
        (["gs:/bucket/model"], "BAD_URI", "gs://bucket/model"),
        ([MODELS / "module", "--platform", "mainframe"], "UNKNOWN_PLATFORM", "vertex"),
        ([MODELS / "module", "--html", "/nowhere/report.html"], "", "/nowhere"),
        ([], "BAD_USAGE", "MODEL"),
        ([], "BAD_USAGE", "servegraph inspect --help"),
    ],
)
def test_what_cannot_be_read_is_exit_2(arguments: list[object], code: str, says: str) -> None:
    done = servegraph("inspect", *arguments, "--json")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    error = json.loads(done.stdout)["error"]
    assert says in error["message"] + error["fix"]
    if code:
        assert error["code"] == code


def test_a_platform_makes_it_a_preflight() -> None:
    assert servegraph("inspect", MODELS / "keras_dense", "--platform", "vertex").returncode == 0
    done = servegraph("inspect", MODELS / "keras_dense", "--platform", "ai-platform", "--json")
    assert json.loads(done.stdout)["platform"] == "ai-platform"
    assert "PLATFORM_ENDED" in done.stdout


def test_nothing_heavy_is_imported() -> None:
    script = (
        "import sys; sys.argv = ['servegraph', 'inspect', sys.argv[1]]\n"
        "from servegraph_pipelines.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ['click', 'json', 'logging', 'tensorflow', 'kfp', 'numpy', 'google.cloud.storage', 'jinja2', 'yaml', 'rich', 'hashlib', 'ctypes', 'asyncio', 'dataclasses', 'datetime']\n"
        "print('HEAVY', [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, MODELS / "module"], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_any_name_on_any_terminal(tmp_path: Path) -> None:
    model = tmp_path / "model-größe-→"
    shutil.copytree(MODELS / "keras_lookup", model)
    (model / os.fsdecode(b"not utf-8 \xff")).write_bytes(b"")
    for encoding in ("utf-8", "latin-1", "ascii"):
        for flags in ([], ["--json"]):
            done = subprocess.run(
                [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()", "inspect", model, *flags],
                capture_output=True,
                env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
            )
            assert done.returncode == 0
            if flags:
                assert json.loads(done.stdout.decode(encoding))["size_bytes"] > 0

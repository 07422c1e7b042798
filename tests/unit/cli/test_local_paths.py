"""Paths on this machine: no address is one (no directory `gs:` is made), and TensorFlow must be able to load from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from servegraph.errors import InputError
from servegraph.storage.local_paths import require_loadable_path, require_local
from servegraph_pipelines.cli import VERBS, main
from servegraph_pipelines.cli.group import app
from servegraph_pipelines.cli.local_paths import LocalPath

MODEL = str(Path(__file__).parents[2] / "real_models/keras_dense")
HERE = str(Path(__file__))
PLACE = "gs://bucket/folder/x.yaml"
DEPLOYED = ["--name", "m"]
CASES = [
    ["run", "--output-dir", PLACE],
    ["run", "--params-file", PLACE],
    ["compile", PLACE],
    ["submit", "--engine", "kfp", "--params-file", PLACE],
    ["submit", "--engine", "kfp", "--token-file", PLACE],
    ["submit", "--engine", "kfp", "--image-lock", PLACE],
    ["train", "--engine", "kfp", "--name", "n", "--output", "o", "--params-file", PLACE],
    ["why", PLACE, "train"],
    ["why", ".", "train", "--against", PLACE],
    ["schedule", "list", PLACE],
    ["export", MODEL, PLACE],
    ["export", PLACE, "out"],
    ["export", MODEL, "out", "--schema", PLACE],
    ["inspect", MODEL, "--html", PLACE],
    ["optimize", MODEL, PLACE],
    ["optimize", PLACE, "out"],
    ["optimize", MODEL, "out", "--html", PLACE],
    ["measure", PLACE],
    ["choose", MODEL, "--measured", PLACE],
    ["package", PLACE, MODEL, "out", "--predictor", "a:B"],
    ["package", HERE, PLACE, "out", "--predictor", "a:B"],
    ["package", HERE, MODEL, PLACE, "--predictor", "a:B"],
    ["package", HERE, MODEL, "out", "--predictor", "a:B", "--artifacts", PLACE],
    ["deploy", MODEL, *DEPLOYED, "--root", PLACE],
    ["deploy", MODEL, *DEPLOYED, "--root", "gs:/bucket/folder"],
    ["deploy", MODEL, *DEPLOYED, "--root", "r", "--choice", PLACE],
    ["deploy", MODEL, *DEPLOYED, "--root", "r", "--explanation", PLACE],
    ["versions", *DEPLOYED, "--root", PLACE],
    ["rollback", *DEPLOYED, "--root", PLACE],
    ["undeploy", *DEPLOYED, "--all", "--root", PLACE],
    ["serve", "gs:/bucket/folder"],
    ["schema", HERE, "--out", PLACE],
]


@pytest.mark.parametrize("arguments", CASES, ids=" ".join)
def test_an_address_is_refused_and_nothing_is_made(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["servegraph", "--debug", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().err
    assert ended.value.code == 2, shown
    assert "error NOT_LOCAL: 'gs://bucket/folder" in shown
    assert "gcloud storage cp" in shown
    assert not list(tmp_path.iterdir())


def test_no_verb_takes_a_path_of_another_type() -> None:
    context = click.Context(app)
    for verb in VERBS:
        command = app.get_command(context, verb)
        assert command is not None
        commands = [*command.commands.values()] if isinstance(command, click.Group) else [command]
        kinds = [parameter.type for one in commands for parameter in one.params]
        assert all(isinstance(kind, LocalPath) for kind in kinds if isinstance(kind, click.Path)), verb


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a/b", "a/b"),
        ("file:///tmp/a%20b", "/tmp/a b"),
        ("./gs:/b", "./gs:/b"),
        ("C:/models", "C:/models"),
        ("run:1/x", "run:1/x"),
    ],
)
def test_what_is_a_path(text: str, path: str) -> None:
    assert require_local(text) == Path(path)


@pytest.mark.parametrize("text", ["gs://b/x", "gs:/b/x", "GS://b/x", "s3://b/x", "https://host/x", "hdfs:/x"])
def test_what_is_an_address(text: str) -> None:
    for given in (text, Path(text)):
        with pytest.raises(InputError, match="://"):
            require_local(given)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--output-dir", "data[v1]"],
        ["export", MODEL, "data[v1]/out"],
        ["export", "data[v1]/model", "out"],
        ["optimize", MODEL, "data[v1]/out"],
        ["optimize", "data[v1]/model", "out"],
        ["package", HERE, MODEL, "data[v1]/out", "--predictor", "a:B"],
        ["deploy", MODEL, *DEPLOYED, "--root", "data[v1]"],
        ["serve", "data[v1]"],
    ],
    ids=" ".join,
)
def test_what_tensorflow_takes_for_a_pattern_is_refused_at_the_beginning(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODEL, "data[v1]/model")
    monkeypatch.setattr(sys, "argv", ["servegraph", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().err
    assert ended.value.code == 2, shown
    assert "error UNLOADABLE_PATH: " in shown and "takes '[' in a path for a wildcard" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["data[v1]"]
    assert [path.name for path in (tmp_path / "data[v1]").iterdir()] == ["model"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", MODEL, "out", "--samples", "lost"],
        ["export", MODEL, "out", "--warmup", "lost"],
        ["optimize", MODEL, "out", "--samples", "lost"],
        ["measure", MODEL, "--samples", "lost"],
    ],
    ids=" ".join,
)
def test_samples_that_are_not_there_are_told_before_anything_is_loaded(arguments: list[str], tmp_path: Path) -> None:
    started = """
import sys
from servegraph_pipelines.cli import main
try:
    main()
finally:
    print("loaded" if "tensorflow" in sys.modules else "not loaded")
"""
    done = subprocess.run(
        [sys.executable, "-c", started, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error NOT_FOUND: Cannot read 'lost'"), "nothing was begun"
    assert done.stdout == "not loaded\n"


def test_a_schema_does_not_take_the_place_of_the_data(tmp_path: Path) -> None:
    data = tmp_path / "sales.csv"
    data.write_text("length,kind\n1,no\n2,yes\n")
    with pytest.raises(InputError, match="holds the data itself"):
        app.main(["schema", str(tmp_path / "*.csv"), "--out", str(data)], standalone_mode=False)
    assert data.read_text().startswith("length")
    app.main(["schema", str(data), "--out", str(tmp_path / "schema.yaml")], standalone_mode=False)
    assert "kind" in (tmp_path / "schema.yaml").read_text()


def test_a_relative_path_in_a_directory_with_brackets_is_loadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data[v1]").mkdir()
    monkeypatch.chdir(tmp_path / "data[v1]")
    require_loadable_path(Path("model]"), "MODEL")

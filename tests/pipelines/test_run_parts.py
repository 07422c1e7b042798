"""What a local run is made of: names, paths that containers are to see, conditions, exit codes."""

from pathlib import Path

import pytest

from servegraph.serve.state import check_model_name
from servegraph_pipelines import flows
from servegraph_pipelines.foresight import in_full
from servegraph_pipelines.local_runner import named_paths, replace_interpreter, resolve_channel
from servegraph_pipelines.naming import filled_in, name_of
from servegraph_pipelines.run import _temporary
from servegraph_pipelines.step_errors import killed


@pytest.mark.parametrize(
    ("exit_code", "said"),
    [(137, "was killed (SIGKILL)"), (-9, "was killed (SIGKILL)"), (139, "crashed (SIGSEGV)"), (-15, "ended (SIGTERM)")],
)
def test_exit_codes_of_signals(exit_code, said):
    assert said in str(killed(exit_code, "Step train", Path("run.log")))
    assert [killed(code, "Step train", Path("run.log")) for code in (None, 0, 1, 128, 255)] == 5 * [None]


def test_what_parameters_name_is_seen_in_containers(tmp_path, monkeypatch):
    file, trainer = tmp_path / "in/a [1].csv", tmp_path / "own.py"
    file.parent.mkdir()
    for one in (file, trainer):
        one.write_text("")
    named = [f"{tmp_path}/i?/*.csv", str(file), file.as_uri(), f"estimator:{trainer}:make"]
    assert list(named_paths(named)) == [tmp_path, file, file, trainer]
    assert list(named_paths({"a": [str(file)], "b": {"c": str(trainer)}})) == [file, trainer]
    assert list(named_paths(["", "in", "gs://b/x", "/none/*", "/no such", 7, "/" + 9999 * "x"])) == []
    monkeypatch.chdir(tmp_path)
    given = {"data": "in/*.csv", "trainer": "estimator:own.py:make", "schema": "gs://b/s.yaml", "model_name": "in"}
    full = {"data": f"{tmp_path}/in/*.csv", "trainer": f"estimator:{trainer}:make"}
    assert in_full(flows.load("train-and-deploy"), given, ()) == {**given, **full}
    assert in_full(flows.load("train-and-deploy"), {"data": "census"}, ()) == {"data": "census"}


def test_a_model_is_called_after_its_data(tmp_path, monkeypatch):
    (folder := tmp_path / "my sales").mkdir()
    monkeypatch.chdir(folder)
    (folder / "a[1].csv").write_text("")
    named = {"sales.csv": "sales", "../Q1 sales.csv.gz": "Q1-sales", "*.csv": "my-sales", ".": "my-sales"}
    named |= {"a[1].csv": "a-1", "b/part-*/*.csv": "b", "../*/x.csv": tmp_path.name, "/": "model", "_é.csv": "model"}
    named |= {"gs://bucket/c/*.csv": "c", "gs://bucket/d/": "d", "gs://bucket/**": "bucket", "x" * 200: "x" * 128}
    named[(folder / "e.tfrecord").as_uri()] = "e"
    assert {data: name_of(data) for data in named} == named
    assert [check_model_name(name) for name in named.values()]


def test_only_a_model_of_own_data_without_a_name_is_given_one(monkeypatch):
    said: list[str] = []
    for pipeline in flows.FLOWS:
        flow = flows.load(pipeline)
        assert filled_in(flow, {"data": "sales.csv"}, said.append) == {"data": "sales.csv", "model_name": "sales"}
        for given in ({}, {"data": "census"}, {"data": "sales.csv", "model_name": "census"}):
            assert filled_in(flow, given, said.append) == given
    assert ["The model is called sales, " in line for line in said] == [True, True]
    monkeypatch.chdir(Path(__file__).parents[2] / "docs/examples")
    of_others = {"data": "sales.csv"}
    assert filled_in(flows.load("deploy_a_model:deploy_a_model"), of_others) == of_others


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".tmp-left/deep").mkdir(parents=True)
    with _temporary(tmp_path) as folder:
        assert [*tmp_path.iterdir()] == [folder]
    assert [*tmp_path.iterdir()] == []


def test_only_the_interpreter_of_the_executor_is_replaced():
    command = ["sh", "-c", 'python3 -m kfp.dsl.executor_main "$@"', "import python3", "--data", "/tmp/python3 -m/x"]
    assert replace_interpreter(command, "/venv/bin/python") == [
        "sh",
        "-c",
        '/venv/bin/python -m kfp.dsl.executor_main "$@"',
        *command[3:],
    ]


def test_a_condition_finds_the_value_that_it_names():
    from kfp.local.io import IOStore

    store = IOStore()
    store.put_parent_input("pipelinechannel--evaluate-verdict", "blessed")
    store.put_task_output("check-data", "decision", "train")
    store.put_task_output("flip", "Output", 3)
    assert resolve_channel("pipelinechannel--evaluate-verdict", store) == "blessed"
    assert resolve_channel("pipelinechannel--check-data-decision", store) == "train"
    assert resolve_channel("pipelinechannel--flip-Output", store) == 3
    assert resolve_channel("pipelinechannel--flip-other", store) is None

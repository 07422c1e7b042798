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
    named |= {"a[1].csv": "a-1", "b/part-*/*.csv": "b", "../*/x.csv": tmp_path.name, "/": "model", "_é.csv": "e"}
    named |= {"gs://bucket/c/*.csv": "c", "gs://bucket/d/": "d", "gs://bucket/**": "bucket", "x" * 200: "x" * 128}
    named[(folder / "e.tfrecord").as_uri()] = "e"
    assert {data: name_of(data) for data in named} == named
    assert [check_model_name(name) for name in named.values()]


@pytest.mark.parametrize(
    "data",
    [
        *(
            "sales-2024-06.csv",
            "sales_20240601.csv",
            "2024-06-sales.csv",
            "sales20240601.csv.gz",
            "sales 2024-06-30.csv",
        ),
        *("sales-2024.csv", "sales-202406.csv", "sales-2024-Q2.csv", "2024w26_sales.csv", "sales-06-2024.csv"),
        *("30-06-2024 sales.csv", "sales_20240601T120000.csv", "sales/2024-06.csv", "gs://b/sales/2024/06/*.csv"),
        *("gs://b/sales/day=2024-06-01/part-*.csv", "sales/7.csv"),
    ],
)
def test_a_date_is_no_part_of_the_name(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    assert name_of(data) == "sales"


@pytest.mark.parametrize(
    "name", ["top-500", "sales-2024b", "x1999", "b-52", "area-51-2", "covid19", "v-20001", "q-1850"]
)
def test_a_number_that_is_no_date_stays(name):
    assert name_of(f"{name}.csv") == name


def test_letters_that_a_name_cannot_have_are_folded_or_told_apart():
    folded = {"données": "donnees", "größe": "grosse", "Łódź": "Lodz"}
    assert {data: name_of(f"gs://b/{data}.csv") for data in folded} == folded
    others = ["销售", "库存", "销售-a", "库存-a", "データ"]
    names = [name_of(f"gs://b/{data}-2024-06.csv") for data in others]
    assert len({*names, "model", "a"}) == len(names) + 2
    assert [check_model_name(name) for name in names] == [name_of(f"gs://b/{data}.csv") for data in others]
    assert len(name_of(f"gs://b/{'x' * 200}销.csv")) == 128


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

"""What is tried, what is kept, what a choice takes from a measurement; no server runs here."""

import json
import math
from datetime import date

import pytest
from click.testing import CliRunner
from tests.tiny_models import write_tiny_model

from servegraph.errors import InputError, ModelError, StorageError
from servegraph.machines import this_machine
from servegraph.machines.choose import choose
from servegraph.machines.decision import ChoiceRequest
from servegraph.measure.limits import Limits, check
from servegraph.measure.measure import answers_equal, judged
from servegraph.measure.questions import Questions
from servegraph.measure.result import Batch, Figures, Measurement, choice_facts
from servegraph.measure.tuning import changes, combined
from servegraph.serve.settings import Settings, read_settings, require_writable, write_settings
from servegraph_pipelines.cli import app


def figures(latency_ms=1.0, rate=1000.0):
    return Figures(2.0, 10**8, 2 * 10**8, (Batch(1, latency_ms, 2 * latency_ms, 900.0),), 16, rate, 20.0)


@pytest.mark.parametrize(
    ("latency_ms", "rate", "is_equal", "reason"),
    [
        (0.5, 1000, True, "faster, with equal answers"),
        (1.0, 1100, True, "faster, with equal answers"),
        (0.5, 1000, False, "the answers differ"),
        (1.0, 1000, True, "not faster"),
        (0.97, 1020, True, "not faster"),
        (0.5, 900, True, "faster in one respect, slower in the other"),
        (1.2, 2000, True, "faster in one respect, slower in the other"),
    ],
)
def test_a_change_is_kept_only_if_faster_with_equal_answers(latency_ms, rate, is_equal, reason):
    found = judged("x", figures(), figures(latency_ms, rate), is_equal)
    assert (found.kept, found.reason) == (reason.startswith("faster, "), reason)


def test_answers_agree_but_for_rounding():
    one = {"outputs": [[0.1234567, 1], ["a", float("nan")]]}
    assert answers_equal(one, {"outputs": [[0.1234568, 1], ["a", float("nan")]]})
    for other in (
        [[0.13, 1], ["a", 1.0]],
        [[0.1234567, 2], ["a", 1.0]],
        [[0.1234567, 1]],
        [[0.1234567, 1], ["b", 1.0]],
    ):
        assert not answers_equal(one, {"outputs": other})
    assert not answers_equal(one, {"predictions": one["outputs"]})


def test_answers_may_be_as_far_apart_as_bfloat16_is_allowed():
    assert answers_equal({"p": [[0.12, "a", 3]]}, {"p": [[0.125, "a", 3]]}, 0.01)
    assert not answers_equal({"p": [[0.12, "a", 3]]}, {"p": [[0.15, "a", 3]]}, 0.01)
    assert not answers_equal({"p": [[0.12, "a", 3]]}, {"p": [[0.12, "a", 4]]}, 2.0)


def test_what_is_tried_fits_the_model_and_the_cpus():
    names = [change.name for change in changes(Settings(), 4, is_batched=True)]
    assert names == ["oneDNN off", "one TensorFlow thread", "no shared calls", "larger shared calls"]
    assert [change.name for change in changes(Settings(), 1, is_batched=False)] == ["oneDNN off"]
    rounding = changes(Settings(), 1, is_batched=False, may_round=True)
    assert [change.name for change in rounding] == ["bfloat16", "oneDNN off"]


def test_settings_add_up_and_say_how_to_start_a_server():
    base = Settings()
    kept = base
    for change in changes(base, 2, is_batched=False):
        kept = combined(kept, change.settings, base)
    assert kept == Settings(onednn=False, intra_op_threads=1, inter_op_threads=1)
    assert kept.environment() == {
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }
    assert base.environment() == {}
    assert Settings(bfloat16=True).environment() == {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}
    assert base.arguments() == ["--batch-rows", "64"]


def test_requests_of_any_number_of_rows():
    questions = Questions("s", {"x": [1, 2, 3]}, 3, True, "samples")
    assert json.loads(questions.body(5, 1)) == {"signature_name": "s", "inputs": {"x": [2, 3, 1, 2, 3]}}
    alone = Questions("s", {"x": [1, 2, 3]}, 1, False, "samples")
    assert json.loads(alone.body(1)) == {"signature_name": "s", "inputs": {"x": [1, 2, 3]}}


@pytest.mark.parametrize(("content", "code"), [(None, "NOT_FOUND"), (b"", "GRAPH_CORRUPT")])
def test_a_model_that_cannot_be_read_is_said_as_by_other_verbs(content, code, tmp_path):
    model = tmp_path / "m"
    if content is not None:
        write_tiny_model(model)
        (model / "saved_model.pb").write_bytes(content)
    error = CliRunner().invoke(app, ["measure", str(model), "--cpus", "1"]).exception
    assert (getattr(error, "code", error), getattr(error, "exit_code", None)) == (code, 2)


def test_limits_beyond_this_machine():
    here = this_machine.read()
    check(Limits(here.vcpus, here.memory_bytes))
    for limits in (Limits(here.vcpus + 1), Limits(1, here.memory_bytes + 1)):
        with pytest.raises(InputError) as caught:
            check(limits)
        assert caught.value.code == "MACHINE_TOO_SMALL"


def test_a_choice_reads_the_measurement():
    measurement = Measurement(5000, Limits(2), "affinity+rlimit", "3 rows, samples", figures(), Settings())
    facts = choice_facts(json.loads(json.dumps(measurement.to_json())))
    decision = choose(ChoiceRequest(5000, date(2026, 11, 25), **facts, target_rate=4000))
    document = decision.to_json()
    assert document["memory_bytes"] == 2 * 10**8
    assert document["memory_rule"] == "measured"
    capacity = document["capacity"]
    assert (capacity["requests_per_second"], capacity["replicas"]) == (1000, 5)  # 4000 / (0.8 x 1000)
    hourly = document["price_per_hour"]
    assert capacity["price_per_hour"] == pytest.approx(5 * hourly)
    assert capacity["price_per_million"] == pytest.approx(hourly / (800 * 3600) * 1e6)
    endless = {**measurement.to_json(), "peak_memory_bytes": math.inf}  # JSON of Python's has it
    for broken in ({}, {"format": 2}, {"format": 1, "peak_memory_bytes": "many"}, [], endless):
        with pytest.raises(InputError) as caught:
            choice_facts(broken)
        assert caught.value.code == "BAD_MEASUREMENT"


def test_a_rate_from_more_cpus_than_the_machine_has_is_a_warning():
    today = date(2026, 11, 25)
    found = choose(ChoiceRequest(5000, today, measured_rate=10.0, measured_cpus=8))
    assert any(warning.startswith("MEASURED_ON_MORE_CPUS") for warning in found.warnings)
    found = choose(ChoiceRequest(5000, today, target_rate=10.0))
    assert found.capacity is None
    assert any(warning.startswith("RATE_NOT_MEASURED") for warning in found.warnings)


def test_of_a_gpu_the_rate_of_a_cpu_says_nothing():
    measured = {"measured_rate": 10.0, "measured_cpus": 2, "measured_latency_ms": 90.0, "latency_goal_ms": 10.0}
    found = choose(ChoiceRequest(5000, date(2026, 11, 25), **measured, target_rate=100.0))
    assert (found.machine.accelerator_type, found.capacity) == ("NVIDIA_TESLA_T4", None)
    assert [warning.split(":")[0] for warning in found.warnings if "MEASURED" in warning] == ["MEASURED_ON_CPU"]


def test_a_measurement_of_another_model_is_a_warning():
    for size, warnings in ((5000, 0), (5001, 1)):
        found = choose(ChoiceRequest(5000, date(2026, 11, 25), measured_model_bytes=size))
        assert sum(warning.startswith("OTHER_MODEL_MEASURED") for warning in found.warnings) == warnings


def test_settings_are_stored_with_the_model_and_read_back(tmp_path):
    assert read_settings(tmp_path) is None
    kept = Settings(128, False, 1, None, bfloat16=True)
    write_settings(tmp_path, kept)
    assert read_settings(tmp_path) == kept
    assert [file.name for file in (tmp_path / "assets.extra").iterdir()] == ["serving_settings.json"]


def test_settings_that_cannot_be_stored_are_missed_before_the_measurement(tmp_path):
    require_writable(write_tiny_model(tmp_path / "m"))
    assert not (tmp_path / "m/assets.extra").exists()
    (tmp_path / "m/assets.extra").symlink_to("/proc/self")  # where not even root makes a file
    measured_in_vain = ["measure", str(tmp_path / "m"), "--save", "--cpus", "9999"]
    with pytest.raises(StorageError) as caught:
        app.main(measured_in_vain, standalone_mode=False)
    assert caught.value.fix


@pytest.mark.parametrize(
    "change",
    [
        {"batch_rows": 0},
        {"batch_rows": None},
        {"batch_rows": "64"},
        {"onednn": 1},
        {"bfloat16": 1},
        {"intra_op_threads": 1.5},
        None,
    ],
)
def test_stored_settings_that_are_none(tmp_path, change):
    write_settings(tmp_path, Settings())
    file = tmp_path / "assets.extra" / "serving_settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change) if change else "[]")
    with pytest.raises(ModelError) as caught:
        read_settings(tmp_path)
    assert caught.value.code == "BAD_SERVING_SETTINGS"

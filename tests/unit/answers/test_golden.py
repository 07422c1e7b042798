import gzip
import json
import math

import ml_dtypes
import numpy as np
import pytest
from tests.effort import processor_s

from servegraph.answers import golden, sample_lines
from servegraph.answers.samples import InputSpec, Samples
from servegraph.deploy_version.golden import difference
from servegraph.deploy_version.plan import Tolerance
from servegraph.errors import InputError, ModelError, StorageError
from servegraph.savedmodel.golden_file import golden_of, parse_golden
from servegraph.savedmodel.layout import GOLDEN_FILE

MODEL_BYTES = 10_000_000


def write(path, asked, *limits):
    """Write golden requests of a model that answers each input as it is."""
    answers = [{f"{name}_back": values for name, values in request.items()} for request in asked.requests()]
    return golden.write(path, "s", asked, answers, *limits)


def written(path):
    return gzip.decompress((path / GOLDEN_FILE).read_bytes())


def size(path):
    return (path / GOLDEN_FILE).stat().st_size


def batch(rows, **inputs):
    return Samples({name: np.asarray(values) for name, values in inputs.items()}, rows, generated=False)


def test_batches_of_1_2_and_the_rest(tmp_path):
    for rows, sizes in [(1, [1]), (2, [1, 1]), (3, [1, 2]), (20, [1, 2, 13])]:
        assert write(tmp_path, batch(rows, x=np.arange(rows)), MODEL_BYTES).lines == len(sizes)
        assert [len(request.inputs["x"]) for request in parse_golden(written(tmp_path))] == sizes


def test_where_it_cannot_be_written_that_is_said(tmp_path):
    (tmp_path / "assets.extra").write_text("a file")
    with pytest.raises(StorageError) as caught:
        write(tmp_path, batch(1, x=np.arange(1)), MODEL_BYTES)
    assert caught.value.code == "NOT_A_DIRECTORY"


def test_records_of_different_lengths(tmp_path):
    ids = [np.zeros((rows, length), np.int32) for rows, length in [(4, 2), (1, 3), (30, 4)]]
    made = Samples({"x": ids[0]}, 35, False, more=tuple({"x": values} for values in ids[1:]))
    write(tmp_path, made, MODEL_BYTES)
    shapes = [np.shape(request.inputs["x"]) for request in parse_golden(written(tmp_path))]
    assert shapes == [(1, 2), (2, 2), (1, 2), (1, 3), (11, 4)]


def test_what_is_written_reads_back_as_the_same_samples(tmp_path):
    asked = {
        "f": np.float32([0.1, 1e-45]),
        "h": np.float16([0.1, 65504]),
        "b": np.array([0.1, 3e38], ml_dtypes.bfloat16),
        "i": np.int64([2**63 - 1, -(2**63)]),
        "u": np.uint64([0, 2**64 - 1]),
        "flag": np.array([True, False]),
        "t": np.array([b"\xff\x00", "é\u2028\n".encode()], dtype=object),
    }
    write(tmp_path, batch(2, **asked), MODEL_BYTES)
    specs = {name: InputSpec("string" if v.dtype == object else v.dtype.name, (None,)) for name, v in asked.items()}
    back = sample_lines.read(str(tmp_path / GOLDEN_FILE), specs)
    for name, values in asked.items():
        assert back.inputs[name].dtype == values.dtype
        assert back.inputs[name].tolist() == values.tolist()


def test_what_json_cannot_hold_is_left_out(tmp_path):
    for strange in (np.array([np.nan], ml_dtypes.bfloat16), np.array([1j]), np.array([-np.inf])):
        recorded = write(tmp_path, batch(1, x=strange), MODEL_BYTES)
        assert recorded.lines == 0
        assert "NaN" in recorded.why_none
        assert not (tmp_path / GOLDEN_FILE).exists()


def test_outputs_that_are_not_finite_are_left_out_of_an_answer(tmp_path):
    answers = [{"p": np.float32([0.5]), "log": np.float32([np.nan])}, {"p": np.float32([1, 2]), "log": np.ones(2)}]
    recorded = golden.write(tmp_path, "s", batch(3, x=np.arange(3)), answers, MODEL_BYTES)
    assert (recorded.lines, recorded.not_finite) == (2, ("log",))
    assert [request.outputs for request in parse_golden(written(tmp_path))] == [
        {"p": [0.5]},
        {"p": [1.0, 2.0], "log": [1.0, 1.0]},
    ]
    assert golden.expected_bytes(batch(3, x=np.arange(3)), answers) > 0


def test_a_complex_output_keeps_the_whole_answer_out_because_no_server_writes_it(tmp_path):
    answers = [{"p": np.float32([0.5]), "spectrum": np.array([1j])}]
    assert golden.write(tmp_path, "s", batch(1, x=np.arange(1)), answers, MODEL_BYTES).lines == 0


@pytest.mark.parametrize(
    ("answer", "free", "why"),
    [
        ({}, None, "call to call"),
        ({"p": np.float32([0.5])}, 10, "budget"),
        ({"p": np.array([np.random.default_rng(0).bytes(3_000_000)], object)}, None, "2 MB"),
    ],
)
def test_why_there_is_no_golden_request_is_said(tmp_path, answer, free, why):
    recorded = golden.write(tmp_path, "s", batch(1, x=np.arange(1)), [answer], MODEL_BYTES, free)
    assert recorded.lines == 0
    assert why in recorded.why_none


def test_an_output_that_another_meta_graph_answers_with_nan_is_left_out_of_its_line(tmp_path):
    answers, its = [{"p": np.float32([1]), "q": np.float32([2])}], [{"p": np.float32([1.5]), "q": np.float32([np.nan])}]
    golden.write(tmp_path, "s", batch(1, x=np.arange(1)), answers, MODEL_BYTES, None, {("serve", "gpu"): its})
    [request] = parse_golden(golden_of(written(tmp_path), ("serve", "gpu")))
    assert (request.outputs, request.within) == ({"p": [1.5]}, 0.5)


def test_a_budget_is_kept_to_the_byte(tmp_path):
    asked = batch(3, x=np.array([b"\xc3\xa9" * 100] * 3, dtype=object))
    write(tmp_path, asked, MODEL_BYTES)
    both = size(tmp_path)
    write(tmp_path, batch(1, x=asked.inputs["x"][:1]), MODEL_BYTES)
    first = size(tmp_path)
    for free, lines in [(None, 2), (both, 2), (both - 1, 1), (first - 1, 0), (0, 0), (-5, 0)]:
        assert write(tmp_path, asked, MODEL_BYTES, free).lines == lines
        assert (tmp_path / GOLDEN_FILE).exists() == (lines > 0)
        assert not lines or free is None or size(tmp_path) <= free


def test_the_first_request_is_kept_beyond_the_allowance(tmp_path):
    asked = batch(2, x=np.random.default_rng(0).integers(0, 10**9, (2, 5000)))
    assert write(tmp_path, asked, 1000).lines == 1


def test_the_answers_of_another_model_go(tmp_path):
    (tmp_path / GOLDEN_FILE).parent.mkdir()
    (tmp_path / GOLDEN_FILE).write_text(json.dumps({"signature_name": "old", "inputs": {}, "outputs": {}}))
    write(tmp_path, batch(1, x=[1]), MODEL_BYTES, 0)
    assert not (tmp_path / GOLDEN_FILE).exists()


@pytest.mark.parametrize("shape", [(), (3,)])
def test_requests_without_a_batch_stand_as_they_are(tmp_path, shape):
    made = Samples({"x": np.ones(shape, np.float32)}, 2, False, False, ({"x": np.zeros(shape, np.float32)},))
    assert write(tmp_path, made, MODEL_BYTES).lines == 2
    back = sample_lines.read(str(tmp_path / GOLDEN_FILE), {"x": InputSpec("float32", shape)})
    assert [request["x"].tolist() for request in back.batches(9)] == [r["x"].tolist() for r in made.batches(9)]


def test_of_a_large_output_some_values_stand_for_all(tmp_path):
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    golden.write(tmp_path, "s", batch(1, x=np.arange(1)), [{"y": image, "n": np.arange(1)}], MODEL_BYTES)
    assert size(tmp_path) < 10_000
    [request] = parse_golden(written(tmp_path))
    assert request.outputs["n"] == [0]
    near = Tolerance(1e-6, 1e-6)

    def found(answer):
        return difference(request, {"y": answer.tolist(), "n": [0]}, near)

    assert found(image) is None
    assert found(image + 1e-7) is None
    for axis in (1, 2):
        assert found(np.flip(image, axis))
    for channel in range(3):
        other = image.copy()
        other[..., channel] += 1
        assert found(other)
    assert "shape" in found(image[:, :, :63])
    assert "shape" in found(image[0])
    every = request.outputs["y"]["every"]
    row, column, channel = (int(place) for place in np.unravel_index(2 * every, (64, 64, 3)))
    image[0, row, column, channel] = 9
    assert f"[0][{row}][{column}][{channel}]" in found(image)


@pytest.mark.parametrize("change", [{"every": 0}, {"every": 2.0}, {"shape": [5]}, {"values": [1]}, {"shape": "3"}])
def test_values_that_cannot_stand_for_all_are_refused(change):
    output = {"every": 2, "shape": [2, 2], "values": [1, 2], **change}
    line = {"signature_name": "s", "inputs": {}, "outputs": {"y": output}}
    with pytest.raises(ModelError) as caught:
        parse_golden(json.dumps(line).encode())
    assert caught.value.code == "BAD_GOLDEN_REQUESTS"


@pytest.mark.parametrize("entry", [{"tags": 5}, {"tags": [["a"]]}, {"tags": [5]}, ["tags"], {"within": 10**400}])
def test_a_line_that_is_no_request_is_left_to_whoever_asks(entry):
    if isinstance(entry, dict):
        entry = {"signature_name": "s", "inputs": {}, "outputs": {}, **entry}
    content = golden_of(json.dumps(entry).encode(), ("serve", "gpu"))
    with pytest.raises(ModelError) as caught:
        parse_golden(content)
    assert caught.value.code == "BAD_GOLDEN_REQUESTS"


def test_a_golden_file_of_very_many_members_is_read_in_time():
    content = gzip.compress(b"", mtime=0) * 150_000
    assert parse_golden(content) == ()
    assert processor_s(lambda: parse_golden(content), 2) < 2


@pytest.mark.parametrize("content", [bytes(1 << 20), b'"' + b"x" * (1 << 20), b"\xff" * (1 << 20)])
def test_what_is_no_request_is_not_quoted_whole(content):
    with pytest.raises(ModelError) as caught:
        parse_golden(content)
    assert caught.value.code == "BAD_GOLDEN_REQUESTS"
    assert len(caught.value.message) < 500


class TestInBrief:
    def test_a_record_too_large_for_the_model_repeats_some_of_its_values(self, tmp_path):
        sound = np.random.default_rng(0).normal(size=(3, 40_000, 1)).astype(np.float32)
        asked = batch(3, x=sound, n=np.arange(3))
        [request] = golden.in_brief(asked, [], MODEL_BYTES).requests()
        assert request["x"].shape == (1, 40_000, 1)
        assert request["x"].dtype == np.float32
        different = np.unique(request["x"])
        assert 200 < len(different) < 400
        assert np.isin(different, sound[0]).all()
        assert request["x"].std() == pytest.approx(sound[0].std(), rel=0.2)
        assert request["n"] == [0]
        write(tmp_path, golden.in_brief(asked, [], MODEL_BYTES), MODEL_BYTES)
        assert size(tmp_path) < 10_000

    def test_of_a_record_without_a_batch_the_whole_request(self):
        words = np.array([b"word %d" % number for number in range(9_000)], dtype=object)
        asked = Samples({"x": words}, 1, False, False)
        brief = golden.in_brief(asked, [], 1000)
        assert not brief.is_batched
        assert brief.inputs["x"].shape == (9_000,)
        assert len(set(brief.inputs["x"])) < 400

    def test_a_record_that_is_small_enough_stays(self):
        asked = batch(2, x=np.zeros((2, 40_000), np.float32))
        assert golden.in_brief(asked, [], 1000) is None
        assert golden.in_brief(batch(1, x=[[b"x" * 9_000]]), [], 1000) is None

    def test_values_that_cannot_be_fewer_stay(self):
        noise = np.random.default_rng(0).bytes(9_000)
        assert golden.in_brief(batch(1, x=np.array([noise], dtype=object)), [], 1000) is None


@pytest.mark.parametrize("bad", [(-1.0, 0.0), (0.0, -1.0), (math.inf, 0.0), (0.0, math.nan)])
def test_a_tolerance_is_finite_and_not_below_zero(bad: tuple[float, float]) -> None:
    with pytest.raises(InputError) as caught:
        Tolerance(*bad)
    assert caught.value.code == "BAD_TOLERANCE"
    assert Tolerance(0.0, 0.0)

"""Logs encoded here by field number; that TF Serving's own package writes the same bytes was checked by hand."""

import struct

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf

from servegraph.answers import warmup
from servegraph.answers.samples import InputSpec
from servegraph.errors import DataError
from servegraph.savedmodel.wire import encode_bytes, encode_number


def predict(inputs, signature="serving_default"):
    entries = b"".join(
        encode_bytes(
            2, encode_bytes(1, name.encode()) + encode_bytes(2, tf.make_tensor_proto(value).SerializeToString())
        )
        for name, value in inputs.items()
    )
    return encode_bytes(6, encode_bytes(1, spec(signature) + entries))


def predict_tensor(tensor, name=b"x"):
    return encode_bytes(6, encode_bytes(1, encode_bytes(2, encode_bytes(1, name) + encode_bytes(2, tensor))))


THREE_BYTES_OF_FLOAT = encode_number(1, 1) + encode_bytes(4, b"123")


def spec(signature):
    return encode_bytes(
        1, encode_bytes(1, b"census") + encode_bytes(2, encode_number(1, 3)) + encode_bytes(3, signature.encode())
    )


def example_list(examples):
    return encode_bytes(1, b"".join(encode_bytes(1, example) for example in examples))


def with_context(examples, context):
    return encode_bytes(2, b"".join(encode_bytes(1, example) for example in examples) + encode_bytes(2, context))


def classify(sent, signature, field=2):
    return encode_bytes(field, encode_bytes(1, spec(signature) + encode_bytes(2, sent)))


def crc(data):
    value = google_crc32c.value(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def head(length):
    return struct.pack("<Q", length) + crc(struct.pack("<Q", length))


def framed(records):
    return b"".join(head(len(record)) + record + crc(record) for record in records)


@pytest.fixture
def model(tmp_path):
    def model(*records, damage=None):
        path = tmp_path / warmup.WARMUP_FILE
        path.parent.mkdir()
        content = framed(records)
        path.write_bytes(damage(content) if damage else content)
        return tmp_path

    return model


def example(**values):
    made = tf.train.Example()
    for name, value in values.items():
        made.features.feature[name].float_list.value.append(value)
    return made.SerializeToString()


def test_requests_to_predict(model):
    log_metadata = encode_bytes(1, encode_bytes(1, b"\x0a\x00"))
    asked = {"x": np.float32([[1, 2]]), "word": np.array([b"a"], object), "id": np.int64([2**40])}
    path = model(log_metadata + predict(asked, ""), predict({"half": np.float16([0.5])}, "other"))
    first, second = warmup.read(path)
    assert (first.signature_name, second.signature_name) == ("serving_default", "other")
    assert {name: values.tolist() for name, values in first.inputs.items()} == {
        "x": [[1, 2]],
        "word": [b"a"],
        "id": [2**40],
    }
    assert second.inputs["half"].dtype == np.float16


def test_examples_to_classify_and_regress(model):
    one, two, context = example(x=1.0), example(x=2.0), example(z=3.0)
    tasks = b"".join(
        encode_bytes(1, spec(name) + encode_bytes(2, b"tensorflow/serving/regress")) for name in ("a", "b")
    )
    multi = encode_bytes(4, encode_bytes(1, tasks + encode_bytes(2, example_list([one]))))
    path = model(classify(example_list([one, two]), "c"), classify(with_context([one], context), "r", field=3), multi)
    found = warmup.read(path)
    assert [(r.signature_name, len(r.inputs["inputs"])) for r in found] == [("c", 2), ("r", 1), ("a", 1), ("b", 1)]
    assert found[0].inputs["inputs"].tolist() == [one, two]
    merged = tf.train.Example.FromString(found[1].inputs["inputs"][0])
    assert {name: f.float_list.value[0] for name, f in merged.features.feature.items()} == {"x": 1.0, "z": 3.0}


def test_session_runs_and_streams_are_no_requests(model):
    assert warmup.read(model(encode_bytes(5, b""), encode_bytes(7, b""))) == ()


def test_no_file(tmp_path):
    assert warmup.read(tmp_path) == ()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content[:-1], "cut off"),
        (lambda content: content[:20] + b"\xff" + content[21:], "checksum"),
        (lambda content: b"\x00" * 12 + content, "cut off"),
        (lambda content: content + head(2**62) + b"x", "cut off"),
        (lambda content: framed([b"\x32\x7f"]), "not a PredictionLog"),
        (lambda content: framed([predict({"x": np.float32([1])})[:-3]]), "not a PredictionLog"),
        (lambda content: framed([predict_tensor(b"\xff")]), "tensor cannot be read"),
        (lambda content: framed([predict_tensor(THREE_BYTES_OF_FLOAT)]), "not a PredictionLog"),
        (lambda content: framed([predict_tensor(b"", name=b"\xff")]), "utf-8"),
    ],
)
def test_a_damaged_file_is_one_error(model, damage, says):
    with pytest.raises(DataError, match=says) as caught:
        warmup.read(model(predict({"x": np.float32([[1, 2]])}), damage=damage))
    assert "tf_serving_warmup_requests" in caught.value.message


def test_requests_become_samples(model):
    requests = warmup.read(
        model(
            predict({"ids": np.int32([[1, 2]])}),
            predict({"ids": np.int32([[3, 4], [5, 6]])}),
            predict({"ids": np.int32([[7]])}),
            predict({"x": np.float32([1])}, "other"),
        )
    )
    specs = {"ids": InputSpec("int32", (None, None))}
    found = warmup.samples(requests, "serving_default", specs)
    assert [batch["ids"].tolist() for batch in found.batches(8)] == [[[1, 2], [3, 4], [5, 6]], [[7]]]
    assert (found.rows, found.generated, found.is_batched) == (4, False, True)
    assert warmup.samples(requests, "none", specs) is None
    alone = warmup.samples(requests, "serving_default", {"ids": InputSpec("int32", None)})
    assert alone.rows == 4


def test_requests_without_a_common_batch_stay_apart(model):
    requests = warmup.read(model(*[predict({"x": np.float32([[1], [2]]), "rate": np.float32(0.5)})] * 2))
    found = warmup.samples(
        requests, "serving_default", {"x": InputSpec("float32", (None, 1)), "rate": InputSpec("float32", ())}
    )
    assert (found.rows, found.is_batched) == (2, False)
    assert [sorted(request) for request in found.batches(1)] == [["rate", "x"]] * 2


def test_what_a_request_leaves_out_has_its_default(model):
    requests = warmup.read(model(predict({"x": np.float32([[1], [2]])})))
    rate = InputSpec("float32", (), tf.make_tensor_proto(0.5).SerializeToString())
    found = warmup.samples(requests, "serving_default", {"x": InputSpec("float32", (None, 1)), "rate": rate})
    assert [request["rate"].tolist() for request in found.batches(1)] == [0.5]


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        ({"x": InputSpec("float32", (None, 3))}, "shape"),
        ({"x": InputSpec("int32", (None, 2))}, "float32"),
        ({"y": InputSpec("float32", (None, 2))}, "inputs"),
    ],
)
def test_requests_that_do_not_fit(model, specs, says):
    requests = warmup.read(model(predict({"x": np.float32([[1, 2]])})))
    with pytest.raises(DataError, match=rf"warmup request 1.*{says}"):
        warmup.samples(requests, "serving_default", specs)

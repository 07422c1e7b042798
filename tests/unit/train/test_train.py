"""Training on small tables: the contract of a trainer, resuming, and what comes out."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from servegraph.data import schema_file
from servegraph.data.table import read
from servegraph.errors import InputError, TrainerError
from servegraph.train.hyperparameters import parse_hyperparameters
from servegraph.train.identity import claim, identity_of
from servegraph.train.request import DEFAULT_TRAINER, TrainRequest
from servegraph.train.train import Outputs, load_schema, train
from servegraph.train.wide_and_deep import build
from servegraph.trained import MODEL_FILE, checkpoints

FAST = {"epochs": 2, "hidden_units": [8], "batch_size": 64}


def outputs(path: Path) -> Outputs:
    return Outputs(path / "model", path / "checkpoints", path / "logs", path / "samples.jsonl")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """600 records whose label follows from a number and a text that is written in two spellings."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "table.csv"
    lines = ["size,fixed colour,y"]
    for i in range(600):
        size, colour = random.normal(), ["red", "blue"][i % 2]
        label = "yes" if size + (1 if colour == "red" else -1) > 0 else "no"
        lines.append(f"{size:.4f}, {colour},{label}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    places = outputs(tmp_path_factory.mktemp("trained"))
    return train(TrainRequest(data=table), {**FAST, "epochs": 60, "dropout": 0}, places), places


def test_the_default_trainer_learns(trained):
    result, _ = trained
    assert result.evaluation.scalars["accuracy"] > 0.9
    assert result.classes == ("no", "yes")


def test_metrics_of_few_records_are_noted(trained, tmp_path):
    assert trained[0].notes == ()
    (tmp_path / "d.csv").write_text("a,y\n" + "".join(f"{i / 8},{i % 2}\n" for i in range(20)))
    few = train(TrainRequest(data=str(tmp_path / "d.csv")), FAST, outputs(tmp_path))
    assert few.notes == (f"The metrics are of {few.eval_rows} held-out records only; give more data, or eval_data.",)


def test_checkpoints_and_logs_are_outside_the_model(trained):
    _, places = trained
    assert sorted(path.name for path in places.model.iterdir()) == [MODEL_FILE, "schema.yaml"]
    assert checkpoints.newest(places.checkpoints)[0] == 60
    assert len(list(places.checkpoints.glob("*.keras"))) == checkpoints.KEEP
    assert list(places.logs.glob("events.out.tfevents.*"))


def test_both_spellings_are_one_value(trained):
    import keras
    import tensorflow as tf

    import servegraph.trained.layers  # noqa: F401

    model = keras.models.load_model(trained[1].model / MODEL_FILE)
    size = tf.constant([0.1, -0.2])
    plain = model({"size": size, "fixed_colour": tf.constant(["red", "blue"])})
    spaced = model({"size": size, "fixed_colour": tf.constant([" red", "blue \t"])})
    unknown = model({"size": size, "fixed_colour": tf.constant(["green", "green"])})
    assert np.array_equal(plain, spaced)
    assert not np.array_equal(plain, unknown)


def test_samples_are_held_out_records_with_their_label(trained):
    lines = [json.loads(line) for line in trained[1].samples.read_text().splitlines()]
    assert len(lines) == min(512, trained[0].eval_rows)
    assert set(lines[0]) == {"size", "fixed_colour", "y"}
    assert lines[0]["fixed_colour"].startswith(" ")


def test_a_float_label_is_a_regression(tmp_path):
    path = tmp_path / "d.csv"
    x = np.linspace(-1, 1, 300)
    path.write_text("x,y\n" + "".join(f"{v:.3f},{100 + 50 * v + 0.01:.3f}\n" for v in x))
    result = train(TrainRequest(data=str(path)), {**FAST, "epochs": 150, "dropout": 0}, outputs(tmp_path))
    assert result.classes == ()
    assert result.evaluation.scalars["r2"] > 0.9


def test_numbers_of_all_columns_are_normalized_together(tmp_path):
    """Each by its own mean and variance, whole numbers beside others; a layer for each would be most of a wide graph."""
    import keras

    (tmp_path / "d.csv").write_text("a,n,same,y\n" + "".join(f"{i / 8},{i * i},7,{i % 2}\n" for i in range(64)))
    data = read(str(tmp_path / "d.csv"), load_schema(TrainRequest(data=str(tmp_path / "d.csv"), label="y"))[0])
    model = build(data, parse_hyperparameters(FAST))
    assert [type(layer).__name__ for layer in model.layers].count("Normalization") == 1
    numbers = keras.Model(model.inputs, model.get_layer("normalized-numbers").output)
    features = {name: np.asarray(values, np.float64) for name, values in data.features.items()}
    found = np.asarray(numbers({name: data.features[name] for name in features}))
    wanted = np.stack([(v - v.mean()) / (v.std() or 1) for v in features.values()], axis=-1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e25])
def test_a_label_of_any_scale_is_learned(tmp_path, scale):
    path = tmp_path / "d.csv"
    rows = np.random.default_rng(0).normal(size=(300, 2))
    path.write_text("x,z,y\n" + "".join(f"{x:.4f},{z:.4f},{scale * (3 * x + z):.6g}\n" for x, z in rows))
    learning = {**FAST, "epochs": 8, "learning_rate": 0.05, "dropout": 0}
    assert train(TrainRequest(data=str(path)), learning, outputs(tmp_path)).evaluation.scalars["r2"] > 0.9


def test_integer_classes_with_a_vocabulary_and_a_cross(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "label: y\ncolumns:\n  a: {dtype: int64, vocabulary_size: 3}\n  b: {dtype: float32, buckets: [0, 1]}\n"
        "  c: {dtype: string, hash_buckets: 4}\n  y: {dtype: int64}\n"
        "crosses: [{columns: [a, b, c], hash_buckets: 20}]\n"
    )
    rows = "".join(f"{i % 4},{i % 3},{'xyz'[i % 3]},{i % 3}\n" for i in range(200))
    (tmp_path / "d.csv").write_text("a,b,c,y\n" + rows)
    request = TrainRequest(data=str(tmp_path / "d.csv"), schema=str(tmp_path / "s.yaml"))
    assert train(request, FAST, outputs(tmp_path)).classes == ("0", "1", "2")


@pytest.mark.parametrize("label", ["string", "float32"])
def test_no_layer_has_a_name_that_an_input_can_have(tmp_path, label):
    from servegraph.train.wide_and_deep import Hyperparameters, build

    (tmp_path / "d.csv").write_text("values,c,wide_c,b,y\n1,1,1,1,1\n2,2,2,2,2\n")
    described = (
        "label: y\ncolumns:\n  values: {dtype: float32}\n  c: {dtype: string}\n  wide_c: {dtype: string, hash_buckets: 4}\n"
        f"  b: {{dtype: float32, buckets: [0]}}\n  y: {{dtype: {label}}}\n"
        "crosses: [{columns: [c, b, wide_c], hash_buckets: 9}, {columns: [b, b], hash_buckets: 9}]\n"
    )
    data = read(str(tmp_path / "d.csv"), schema_file.parse(described, "test"))
    model = build(data, Hyperparameters())
    names = {layer.name for layer in model.layers}
    assert {name for name in names if "-" not in name} == set(data.features) == set(model.input)


TRAINERS = {
    "raises": ("def train(args):\n    return 1 / 0\n", "TRAINER_FAILED", "ZeroDivisionError"),
    "estimator": (
        "import tensorflow as tf\ndef train(args):\n    return tf.estimator.LinearClassifier([])\n",
        "TRAINER_FAILED",
        "if its name begins so: estimator:/",
    ),
    "nothing": ("def train(args):\n    pass\n", "TRAINER_RETURNED_NO_MODEL", "NoneType"),
    "imports": ("import not_installed_anywhere\n", "TRAINER_FAILED", "not_installed_anywhere"),
    "syntax": ("def train(args:\n", "TRAINER_FAILED", "SyntaxError"),
    "logits": (
        "import keras\ndef train(args):\n    x = keras.Input((), name='size')\n"
        "    y = keras.layers.Dense(2, kernel_initializer='ones')(keras.layers.Reshape((1,))(x))\n"
        "    return keras.Model({'size': x}, y)\n",
        "TRAINER_MODEL_UNFIT",
        "softmax",
    ),
    "named outputs": (
        "import keras\ndef train(args):\n    x = keras.Input((), name='size')\n"
        "    y = keras.layers.Dense(2, activation='softmax')(keras.layers.Reshape((1,))(x))\n"
        "    return keras.Model({'size': x}, {'p': y, 'size again': x})\n",
        "TRAINER_MODEL_UNFIT",
        "returns a dict of 'p', 'size again', not one tensor",
    ),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_that_breaks_the_contract_is_named(table, tmp_path, name):
    source, code, says = TRAINERS[name]
    (tmp_path / "own.py").write_text(source)
    with pytest.raises(TrainerError, match=says) as caught:
        train(TrainRequest(data=table, trainer=str(tmp_path / "own.py")), {}, outputs(tmp_path))
    assert caught.value.code == code
    assert not (tmp_path / "model").exists()


def test_a_trainer_of_ones_own_with_a_sigmoid(table, tmp_path):
    (tmp_path / "own.py").write_text(
        "import keras\ndef build(args):\n    x = keras.Input((), name='size')\n"
        "    y = keras.layers.Dense(1, activation='sigmoid')(keras.layers.Reshape((1,))(x))\n"
        "    return keras.Model({'size': x}, y)\n"
    )
    result = train(TrainRequest(data=table, trainer=f"{tmp_path}/own.py:build"), {}, outputs(tmp_path))
    assert "accuracy" in result.evaluation.scalars


@pytest.mark.parametrize("name", ["no.such.module", "json:nothing", "missing.py", "json"])
def test_a_trainer_that_is_not_there(table, tmp_path, name):
    with pytest.raises(InputError) as caught:
        train(TrainRequest(data=table, trainer=name), {}, outputs(tmp_path))
    assert caught.value.code == "NO_TRAINER"


@pytest.mark.parametrize(
    ("records", "batch"), [(1, 8), (144, 8), (600, 16), (8_191, 128), (8_192, 256), (1_000_000, 256)]
)
def test_few_records_are_taken_in_small_batches(records, batch):
    assert parse_hyperparameters({}).batch_of(records) == batch
    assert parse_hyperparameters({"batch_size": 64.0}).batch_of(records) == 64


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"epoch": 1}, "It has epochs, batch_size"),
        ({"epochs": 0}, "epochs is 0. Fix: Give a whole number of at least 1; the default is 10"),
        ({"batch_size": 0}, "batch_size is 0. .* the default is 256, less of few records"),
        ({"epochs": "many"}, "epochs is 'many'"),
        ({"epochs": math.inf}, "epochs is inf"),
        ({"dropout": 1.0}, "dropout is 1.0. Fix: Give a number of at least 0 and below 1; the default is 0.2"),
        ({"learning_rate": math.nan}, "learning_rate is nan. Fix: Give a finite number above 0"),
        ({"hidden_units": [8, 2.5]}, r"hidden_units\[1\] is 2.5. .* the default is \[128, 64\]"),
        ({"hidden_units": "64"}, "hidden_units is '64'. Fix: Give a list"),
        ({"hidden_units": 64}, "hidden_units is 64. Fix: Give a list"),
    ],
)
def test_bad_hyperparameters(table, tmp_path, bad, says):
    with pytest.raises(InputError, match=says) as caught:
        train(TrainRequest(data=table), bad, outputs(tmp_path))
    assert caught.value.code == "BAD_HYPERPARAMETER"


CLASSES = {"old.csv": "ab", "other.csv": "bc", "eval.csv": "ab"}


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory):
    """A training's outputs, and the files of `CLASSES`, of which it was trained on the first."""
    folder = tmp_path_factory.mktemp("checkpointed")
    for name, classes in CLASSES.items():
        (folder / name).write_text("x,y\n" + "".join(f"{i % 29},{classes[i % 29 > 14]}\n" for i in range(200)))
    train(TrainRequest(data=str(folder / "old.csv")), FAST, outputs(folder))
    return folder


@pytest.mark.parametrize(
    ("asked", "hyperparameters", "says"),
    [
        ({"data": "other.csv"}, {}, r'the data differs; classes \["a", "b"\], now \["b", "c"\]; the schema differs'),
        ({"eval_data": "eval.csv"}, {}, "training: the data differs"),
        ({"seed": 2}, {}, "training: seed 1, now 2"),
        ({"warm_start": "m.keras"}, {}, 'training: warm_start null, now "m.keras"'),
        ({"trainer": "servegraph.train.wide_and_deep"}, {}, 'trainer "servegraph.train.wide_and_deep:train", now'),
        ({}, {"hidden_units": [4]}, r'hyperparameters \{"hidden_units": \[8\]\}, now \{"hidden_units": \[4\]\}'),
        ({}, {"epochs": 1}, "a checkpoint of 2 epochs, more than the 1 asked for"),
    ],
)
def test_checkpoints_of_another_training_are_refused(checkpointed, asked, hyperparameters, says):
    described = (checkpointed / "checkpoints/schema.yaml").read_text()
    files = {name: str(checkpointed / value) for name, value in asked.items() if str(value) in CLASSES}
    request = TrainRequest(**{"data": str(checkpointed / "old.csv"), **asked, **files})
    with pytest.raises(InputError, match=says) as caught:
        train(request, {**FAST, **hyperparameters}, outputs(checkpointed))
    assert caught.value.code == "OTHER_CHECKPOINTS"
    assert (checkpointed / "checkpoints/schema.yaml").read_text() == described


def test_files_of_which_nothing_is_known_are_no_checkpoints_to_go_on_from(table, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/weights.h5").touch()
    with pytest.raises(InputError, match=r"no identity\.json") as caught:
        train(TrainRequest(data=table), FAST, outputs(tmp_path))
    assert caught.value.code == "OTHER_CHECKPOINTS"


def test_a_training_that_failed_before_its_first_checkpoint_binds_nothing(table, tmp_path):
    with pytest.raises(InputError):
        train(TrainRequest(data=table), {**FAST, "dropout": 1}, outputs(tmp_path))
    assert train(TrainRequest(data=table), FAST, outputs(tmp_path)).classes == ("no", "yes")
    identity = json.loads((tmp_path / "checkpoints/identity.json").read_text())
    assert identity["hyperparameters"] == {
        "hidden_units": [8],
        "batch_size": 64,
        "learning_rate": 2e-3,
        "embedding_width": 8,
        "dropout": 0.2,
    }


def test_a_new_volume_holds_no_checkpoints(tmp_path):
    for directory in ("lost+found", ".snapshot", "logs"):
        (tmp_path / directory).mkdir()
    for file in ("README", "readme.md", ".nfs0001", "lost+found/#1", ".snapshot/old.keras", "schema.yaml"):
        (tmp_path / file).touch()
    claim(tmp_path, {"seed": 1}, writes=True)
    claim(tmp_path, {"seed": 2}, writes=True)
    (tmp_path / "logs/weights").touch()
    claim(tmp_path, {"seed": 2}, writes=True)
    with pytest.raises(InputError) as caught:
        claim(tmp_path, {"seed": 1}, writes=True)
    assert caught.value.code == "OTHER_CHECKPOINTS"


@pytest.mark.parametrize(
    ("trainer", "written_out", "other"),
    [
        (DEFAULT_TRAINER, {"learning_rate": 0.002, "hidden_units": [128.0, 64], "epochs": 3}, {"dropout": 0.1}),
        ("estimator", {"batch_size": 40.0, "num_layers": 4, "seed": 1, "train_steps": 9}, {"seed": 2}),
        ("estimator:own.py:make", {"batch_size": 40}, {"num_layers": 4}),
        ("own.py:train", {"epochs": 3}, {"batch_size": 256}),
    ],
)
def test_a_default_that_is_written_out_makes_no_other_training(table, tmp_path, trainer, written_out, other):
    request = TrainRequest(data=table, trainer=trainer)
    schema, _ = load_schema(request)
    (tmp_path / "weights").touch()

    def identity(hyperparameters):
        return identity_of(request, schema, hyperparameters)

    (tmp_path / "identity.json").write_text(json.dumps(identity({})))
    claim(tmp_path, identity(written_out), writes=True)
    with pytest.raises(InputError) as caught:
        claim(tmp_path, identity(other), writes=True)
    assert caught.value.code == "OTHER_CHECKPOINTS"


def test_more_epochs_of_the_same_go_on_and_learn(table, tmp_path):
    few = train(TrainRequest(data=table), {**FAST, "dropout": 0}, outputs(tmp_path))
    more = train(TrainRequest(data=table), {**FAST, "dropout": 0, "epochs": 40}, outputs(tmp_path))
    assert more.evaluation.scalars["log_loss"] < 0.7 * few.evaluation.scalars["log_loss"]


@pytest.mark.parametrize("batch_size", [2, 4, 5])  # of 500 records: 250 steps, an epoch; 125; 100
def test_every_batch_of_an_epoch_is_learned_from(tmp_path, batch_size):
    import keras

    (tmp_path / "table.csv").write_text("x,y\n" + "".join(f"{number},{number % 2}\n" for number in range(500)))
    (tmp_path / "held.csv").write_text("x,y\n1,1\n2,0\n")
    request = TrainRequest(data=str(tmp_path / "table.csv"), eval_data=str(tmp_path / "held.csv"), label="y")
    places = outputs(tmp_path)
    train(request, {**FAST, "epochs": 2, "batch_size": batch_size}, places)
    model = keras.models.load_model(places.model / MODEL_FILE)
    assert int(model.optimizer.iterations) == 2 * 500 / batch_size


def test_checkpoints_go_to_a_path():
    with pytest.raises(InputError, match="/gcs/BUCKET") as caught:
        Outputs.at("model", "gs://bucket/checkpoints", "logs", "samples.jsonl")
    assert caught.value.code == "BAD_CHECKPOINT_DIR"


RESUMING = """
import sys
from pathlib import Path
from servegraph.train.request import TrainRequest
from servegraph.train.train import Outputs, train
path = Path(sys.argv[2])
places = Outputs(path / "model", path / "checkpoints", path / "logs", path / "samples.jsonl")
result = train(TrainRequest(data=sys.argv[1]), {"epochs": int(sys.argv[3]), "hidden_units": [8], "batch_size": 64}, places)
print(result.evaluation.scalars["log_loss"])
"""


def run_training(table, path, epochs):
    command = [sys.executable, "-W", "ignore", "-c", RESUMING, table, str(path), str(epochs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_last_checkpoint(table, tmp_path):
    whole = run_training(table, tmp_path / "whole", 120)
    expected = float(whole.communicate(timeout=300)[0])

    killed = run_training(table, tmp_path / "killed", 120)
    deadline = time.monotonic() + 120
    while (found := checkpoints.newest(tmp_path / "killed" / "checkpoints")) is None or found[0] < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    at_kill = checkpoints.newest(tmp_path / "killed" / "checkpoints")[0]
    assert at_kill < 120

    resumed = run_training(table, tmp_path / "killed", 120)
    out, err = resumed.communicate(timeout=300)
    first = next(line for line in err.splitlines() if line.startswith("train "))
    assert int(first.split()[1].split("/")[0]) > at_kill - checkpoints.KEEP  # it did not start over
    assert float(out) == pytest.approx(expected, rel=0.2)

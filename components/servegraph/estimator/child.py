"""The tasks that run under TensorFlow 2.15: train an Estimator, export one, read a Keras 2 file."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from servegraph.data import schema_file
from servegraph.data.schema import Schema
from servegraph.errors import InputError, ServegraphError, TrainerError
from servegraph.estimator import keras2
from servegraph.progress import Progress
from servegraph.serving_inputs.receivers import serving_input_fn
from servegraph.tensorflow_message import first_cause
from servegraph.trained.trainer import load_trainer

REPORT_STEPS = 500
# What TensorFlow says of a checkpoint that lacks a variable or has it in another shape, amid a trace of many lines.
_OTHER_VARIABLES = re.compile(r"Key \S+ not found in checkpoint|tensor_name = .+? stored in checkpoint: \[[\d,]*\]")

# What TensorFlow says where labels are text and the Estimator takes numbers.
_TEXT_LABELS = re.compile(r"Cast string to \w+ is not supported")


@dataclass(frozen=True)
class EstimatorArgs:
    """What a function that makes an Estimator may use: `make(args: EstimatorArgs) -> tf.estimator.Estimator`.

    It has to be made with `model_dir`, where an export looks for its checkpoints.
    `schema` is None where an Estimator that was trained elsewhere is exported without one. Where the label is a class,
    `classes` are its names, and labels are fed as text.
    """

    model_dir: str
    schema: Schema | None
    classes: tuple[str, ...]
    hyperparameters: Mapping[str, Any]
    seed: int


def run(question: Path, answer: Path) -> None:
    """Do the task in the file `question`; write the result, or the error, to `answer`."""
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    asked = json.loads(question.read_text(encoding="utf-8"))
    try:
        outcome = {"result": TASKS[asked["task"]](**asked["request"])}
    except ServegraphError as exc:
        outcome = {"error": exc.parts()}
    except Exception as exc:
        traceback.print_exc()
        said = first_cause(str(getattr(exc, "message", exc)))  # TensorFlow's own have a page of positions around it
        kind = type(exc).__name__
        message = f"The Estimator raised {kind}: {said.removeprefix(f'{kind}: ').rstrip('.')}."
        fix = "See the traceback above this error; of a run it is in its log."
        if _TEXT_LABELS.match(said):
            fix = "Labels that are classes are fed as text: give it label_vocabulary=list(args.classes)."
        outcome = {"error": {"kind": "TrainerError", "message": message, "fix": fix, "code": "ESTIMATOR_FAILED"}}
    answer.write_text(json.dumps(outcome), encoding="utf-8")


def train(make: str, args: dict[str, Any], data: str, predictions: str, steps: int, batch_size: int) -> dict[str, Any]:
    """Train up to `steps` steps in all, then write the answers on the evaluation records to `predictions` (.npy).

    `data` is an .npz file with `train/NAME` and `eval/NAME` arrays per feature, and `labels` of the training records.

    Raises:
        InputError: more steps were done before (code `OTHER_CHECKPOINTS`).
    """
    arguments = _args(args)
    estimator = _estimator(make, arguments)
    done = _done(estimator)
    if done > steps:
        raise InputError(
            f"{arguments.model_dir} holds a checkpoint of {done} steps, more than the {steps} asked for.",
            code="OTHER_CHECKPOINTS",
            fix=f"Ask for {done} train_steps or more, or give another checkpoint_dir or output.",
        )
    with np.load(data, allow_pickle=False) as file:
        arrays = dict(file)
    features = {name[6:]: values for name, values in arrays.items() if name.startswith("train/")}
    held_out = {name[5:]: values for name, values in arrays.items() if name.startswith("eval/")}
    with Progress("train", total=steps, done=done) as progress:
        estimator.train(
            lambda: _batches(features, arrays["labels"], batch_size, arguments.seed),
            max_steps=steps,
            hooks=[_Report(progress)],
        )
    key = "probabilities" if arguments.classes else "predictions"
    answers = [row[key] for row in estimator.predict(lambda: _in_order(held_out), predict_keys=[key])]
    np.save(predictions, np.asarray(answers, np.float32))
    return {"checkpoint": estimator.latest_checkpoint()}


def export(
    make: str, args: dict[str, Any], out: str, input_fn: str | None, formats: list[str], strip_text: bool
) -> dict[str, Any]:
    """Export the Estimator's newest checkpoint with a serving input function, or one made from the schema.

    Raises:
        InputError: there is no checkpoint (code `NOTHING_TO_EXPORT`), it is of another Estimator (`OTHER_CHECKPOINTS`),
            or there is neither function nor schema (`WHICH_INPUTS`).
    """
    arguments = _args(args)
    estimator = _estimator(make, arguments)
    if estimator.latest_checkpoint() is None:
        raise InputError(
            f"{arguments.model_dir} holds no checkpoint.",
            code="NOTHING_TO_EXPORT",
            fix="Train the Estimator first, or give the model_dir that it was trained in.",
        )
    if input_fn:
        receive = load_trainer(input_fn)
    elif arguments.schema is not None:
        receive = serving_input_fn(arguments.schema, formats, strip_text=strip_text)
    else:
        raise InputError(
            "How requests reach this Estimator is not known: it has no schema.",
            code="WHICH_INPUTS",
            fix="Give --schema, or a function of your own: --serving-input-fn file.py:function.",
        )
    try:
        path = estimator.export_saved_model(out, receive)
    except ValueError as exc:
        if not (differs := _OTHER_VARIABLES.search(str(exc))):
            raise
        raise InputError(
            f"{arguments.model_dir} holds a checkpoint of another Estimator than {make} makes: {differs[0]}.",
            code="OTHER_CHECKPOINTS",
            fix="Give the function and the hyperparameters that it was trained with, or the directory of this one.",
        ) from exc
    return {"path": path.decode() if isinstance(path, bytes) else str(path)}


def keras_2(file: str, out: str, trust_code: bool) -> dict[str, Any]:
    """Write the model of a file of Keras 2 as a SavedModel, without the code that is in it unless that is trusted."""
    model = keras2.load(Path(file), tf.keras, trust_code=trust_code)
    model.save(out, include_optimizer=False, save_format="tf")
    return {}


TASKS: Mapping[str, Callable[..., dict[str, Any]]] = {"train": train, "export": export, "keras_2": keras_2}


def _args(args: Mapping[str, Any]) -> EstimatorArgs:
    text = args["schema"]
    return EstimatorArgs(
        model_dir=args["model_dir"],
        schema=schema_file.parse(text, "of the Estimator") if text else None,
        classes=tuple(args["classes"]),
        hyperparameters=args["hyperparameters"],
        seed=args["seed"],
    )


def _estimator(make: str, args: EstimatorArgs) -> Any:
    function = load_trainer(make)
    estimator = function(args)
    if not isinstance(estimator, tf.compat.v1.estimator.Estimator | tf.estimator.Estimator):
        raise TrainerError(
            f"The function {make!r} returned {type(estimator).__name__}, not an Estimator.",
            code="TRAINER_RETURNED_NO_MODEL",
            fix="End it with `return estimator`.",
        )
    if Path(estimator.model_dir).resolve() != Path(args.model_dir).resolve():
        raise TrainerError(
            f"The Estimator that {make!r} returned keeps its checkpoints in {estimator.model_dir}, where neither an "
            "export nor a training that goes on looks for them.",
            code="OTHER_MODEL_DIR",
            fix="Make it with model_dir=args.model_dir.",
        )
    return estimator


def _done(estimator: Any) -> int:
    return 0 if estimator.latest_checkpoint() is None else int(estimator.get_variable_value("global_step"))


def _stripped(features: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tf.strings.strip(v) if v.dtype == tf.string else v for name, v in features.items()}


def _batches(features: Mapping[str, Any], labels: Any, batch_size: int, seed: int) -> Any:
    """Return shuffled batches without end; from a generator, so that the data does not end up in the graph's file."""
    rows = len(labels)

    def generate() -> Iterator[Any]:
        draw = np.random.default_rng(seed)
        while True:
            order = draw.permutation(rows)
            for start in range(0, rows - rows % batch_size or rows, batch_size):
                picked = order[start : start + batch_size]
                yield {name: values[picked] for name, values in features.items()}, labels[picked]

    spec = ({name: _spec(values) for name, values in features.items()}, _spec(labels))
    dataset = tf.data.Dataset.from_generator(generate, output_signature=spec)
    return dataset.map(lambda some, its: (_stripped(some), its)).prefetch(4)


def _in_order(features: Mapping[str, Any], batch_size: int = 1024) -> Any:
    rows = len(next(iter(features.values())))

    def generate() -> Iterator[Any]:
        for start in range(0, rows, batch_size):
            yield {name: values[start : start + batch_size] for name, values in features.items()}

    spec = {name: _spec(values) for name, values in features.items()}
    return tf.data.Dataset.from_generator(generate, output_signature=spec).map(_stripped)


def _spec(values: Any) -> Any:
    return tf.TensorSpec([None], tf.string if values.dtype.kind in "US" else tf.as_dtype(values.dtype))


class _Report(tf.estimator.SessionRunHook):  # type: ignore[misc]
    """Counts the steps on the progress bar, and says the loss every `REPORT_STEPS`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def before_run(self, run_context: Any) -> Any:
        """Ask for the loss and the step."""
        graph = run_context.session.graph
        losses = graph.get_collection(tf.compat.v1.GraphKeys.LOSSES)
        fetched = {"step": tf.compat.v1.train.get_global_step(graph), **({"loss": losses[0]} if losses else {})}
        return tf.estimator.SessionRunArgs(fetched)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Report."""
        step = int(run_values.results["step"]) + 1
        if step % REPORT_STEPS == 0:
            loss = run_values.results.get("loss")
            note = f"step {step}" + ("" if loss is None else f", loss {float(loss):.4f}")
            self._progress.advance(note, steps=REPORT_STEPS)

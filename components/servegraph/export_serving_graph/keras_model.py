"""A Keras model written as a serving SavedModel.

Only what the serving function captures is stored: variables it reads and tables it looks things up in. Optimizer
slots, metrics and second copies of weights (Keras 3.15's own `export` stores each twice, keras-team/keras#23553) are
not left out afterwards; they never come in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegraph import storage
from servegraph.answers import sample_lines
from servegraph.answers.ask import Servable, short_message
from servegraph.answers.generated import first_answered
from servegraph.answers.samples import InputSpec, Samples
from servegraph.data.schema import Schema
from servegraph.errors import ExportRefused, InputError
from servegraph.export_serving_graph import sources
from servegraph.export_serving_graph.interface import Method
from servegraph.export_serving_graph.proof import Proof, refuse_baggage
from servegraph.export_serving_graph.signature import (
    format_function,
    no_probabilities,
    ranking,
    serving_function,
    taken_inputs,
)
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.serving_inputs.encode import Arrays, encode
from servegraph.serving_inputs.formats import Format, parse_formats
from servegraph.trained.probabilities import of_each_class

if TYPE_CHECKING:
    import keras

PROOF_BATCHES = (1, 2, 7)
# The graph is traced anew and fused differently from eager Keras; this is float32 rounding, far below any decision.
TOLERANCE = 1e-5


def write_keras(
    model: keras.Model,
    out: Path,
    schema: Schema | None,
    formats: tuple[str, ...],
    samples: str | None,
    methods: Mapping[str, Method] = MappingProxyType({}),
) -> Proof:
    """Write `model` to the new directory `out`, and prove that it holds nothing of training and answers alike.

    Without `formats` there is one signature, which takes the model's own inputs. One with the method classify answers
    with all classes, for which there has to be a schema that names them.

    Raises:
        ExportRefused: `FIXED_BATCH`, `NO_INPUTS`, `NO_SIGNATURE`, `NO_PROBABILITIES`, `TRAINING_BAGGAGE`,
            `NOT_PROVEN`, `ANSWERS_DIFFER`, `UNTRACKED_RESOURCE`.
        InputError: formats without a schema (code `NO_SCHEMA`), or one that does not name the model's inputs.
    """
    classes = sources.classes(schema)
    inputs = taken_inputs(model, schema)
    serve = serving_function(model, inputs, classes)
    chosen = parse_formats(formats or ("json",))
    if schema is None and chosen != ("json",):
        raise InputError(
            "CSV and tf.Example are parsed by a schema, and there is none.", code="NO_SCHEMA", fix="Give --schema."
        )
    functions = {
        name: format_function(serve, schema, which) if schema and which != "json" else serve
        for name, which in zip((DEFAULT_SIGNATURE, *chosen[1:]), chosen, strict=True)
    }
    ranked = {name for name in functions if classes and methods.get(name) == "classify"}
    functions = {name: ranking(f, classes) if name in ranked else f for name, f in functions.items()}
    answers = {name: ranking(serve, classes) if name in ranked else serve for name in functions}
    _save(model, functions, out)
    refuse_baggage(out)
    _refuse_fixed_batches(out)
    with _same_state(model):
        records = _records(serve, samples)
        if classes:
            _require_probabilities(serve, records, classes)
    return _prove(answers, out, records, schema, dict(zip(functions, chosen, strict=True)))


def _save(model: keras.Model, functions: dict[str, Any], path: Path) -> None:
    import tensorflow as tf

    signatures = {name: _traced(model, function) for name, function in functions.items()}
    captured = {id(handle) for concrete in signatures.values() for handle in concrete.graph.external_captures}
    servable = tf.Module()
    # In the model's own order: that of `concrete.variables` changes from run to run, and the digest with it.
    read = {id(variable): variable for concrete in signatures.values() for variable in concrete.variables}
    own = [weight.value for weight in model.variables if id(weight.value) in read]
    servable.captured_variables = own + [v for key, v in read.items() if key not in {id(w) for w in own}]
    servable.captured_resources = [
        item
        for item in tf.__internal__.tracking.ObjectGraphView(model).breadth_first_traversal()[0]
        if id(getattr(item, "resource_handle", None)) in captured and not isinstance(item, tf.Variable)
    ]
    try:
        tf.saved_model.save(servable, str(path), signatures=signatures)
    except tf.errors.OpError as exc:  # what TensorFlow's own file system raises for a full disk, a missing right
        raise OSError(exc.message) from exc
    except AssertionError as exc:  # what tf.saved_model.save raises for a resource that nothing tracks
        raise ExportRefused(
            f"The model uses a resource that belongs to none of its layers: {exc}",
            code="UNTRACKED_RESOURCE",
            fix="Keep the table or variable as an attribute of the layer that uses it.",
        ) from exc


def _traced(model: keras.Model, function: Any) -> Any:
    """Return the concrete function of a signature; what a layer raises is a refusal (`NO_SIGNATURE`)."""
    try:
        return function.get_concrete_function()
    except ExportRefused:
        raise
    except Exception as exc:  # of layers that anybody may have written
        raise ExportRefused(
            f"The model {model.name!r} cannot be called on requests of any number of records: {short_message(exc)}",
            code="NO_SIGNATURE",
            fix="See that keras.Model(x, model(x)) works for x = keras.Input(…) without a batch_size.",
        ) from exc


@contextmanager
def _same_state(model: keras.Model) -> Iterator[None]:
    """Put back what calls change, so that the model goes on from where the written one begins: generators, counters.

    A value that is read shares its memory with the variable until that is assigned another, so this takes none.
    """
    states = [(variable.value, variable.value.read_value()) for variable in model.variables]
    yield
    for variable, value in states:
        variable.assign(value)


def _records(serve: Any, samples: str | None) -> Samples:
    """Return the records to ask: those of the file `samples`, else made-up ones that the model answers."""
    (given,) = serve.input_signature
    specs = {name: InputSpec(t.dtype.name, tuple(t.shape)) for name, t in given.items()}
    return sample_lines.read(samples, specs, limit=64) if samples else _made_up(specs, serve)


def _require_probabilities(serve: Any, records: Samples, classes: tuple[str, ...]) -> None:
    """Raise `ExportRefused` (`NO_PROBABILITIES`) where the answers are of the right shape and something else."""
    answer = _answer(serve, records.inputs)["probabilities"]
    if of_each_class(answer, len(classes)) is None:
        raise no_probabilities(classes, f"numbers from {answer.min():.3g} to {answer.max():.3g}")


def _prove(
    answers: Mapping[str, Any], path: Path, records: Samples, schema: Schema | None, formats: dict[str, Format]
) -> Proof:
    """Ask each signature, in its format, for the same records; `answers` are the functions to compare with."""
    largest, rows = 0.0, 0
    varying: set[str] = set()
    servable = Servable(path)
    for name, which in formats.items():
        encoded = partial(encode, schema=schema, which=which)
        difference, asked = _compare(answers[name], servable, records, name, encoded, varying)
        largest, rows = max(largest, difference), rows + asked
    notes = [f"Not compared: {name} answers the same request differently each time." for name in sorted(varying)]
    return Proof(rows, largest, tuple(notes))


def _made_up(specs: Mapping[str, InputSpec], serve: Any) -> Samples:
    """Return made-up records that the model answers with something."""
    found = first_answered(specs, partial(_answer, serve))
    if isinstance(found, Samples):
        return found
    raise ExportRefused(
        f"The model answers no request that is made up for it: {found}",
        code="NOT_PROVEN",
        fix="Give requests with --samples FILE.jsonl.",
    )


def _answer(serve: Any, batch: Arrays) -> dict[str, NDArray[Any]]:
    """Return what the model in memory answers. Raises `ExportRefused` (`NOT_PROVEN`) where it refuses."""
    import tensorflow as tf

    try:
        answer = serve({name: tf.constant(values) for name, values in batch.items()})
    except (tf.errors.OpError, ValueError) as exc:
        raise ExportRefused(
            f"The model does not take the records: {short_message(exc)}",
            code="NOT_PROVEN",
            fix="Give records that it can answer with --samples FILE.jsonl.",
        ) from exc
    return {name: tensor.numpy() for name, tensor in answer.items()}


def _refuse_fixed_batches(path: Path) -> None:
    signatures = read_saved_model(storage.open_dir(path)).meta_graphs[0].signatures
    sides = [side for s in signatures.values() for side in (("inputs", s.inputs), ("outputs", s.outputs))]
    for side, tensors in sides:
        fixed = [name for name, t in tensors.items() if t.shape is not None and (not t.shape or t.shape[0] is not None)]
        if fixed:
            raise ExportRefused(
                f"The {side} {fixed} have a fixed batch dimension.",
                code="FIXED_BATCH",
                fix="Make every output keep the outermost dimension of the inputs: no recurrent layer stateful=True, "
                "no reshape to a number of records.",
            )


def _compare(
    serve: Any,
    servable: Servable,
    records: Samples,
    signature: str,
    encoded: Callable[[Arrays], Arrays],
    varying: set[str],
) -> tuple[float, int]:
    """Return (largest difference, rows asked) between the model in memory and the one on disk.

    What the model in memory itself answers differently when it is asked again is added to `varying`, and not compared.
    """
    largest, rows = 0.0, 0
    for size in PROOF_BATCHES:
        batch = {name: np.resize(values, (size, *values.shape[1:])) for name, values in records.inputs.items()}
        expected = _answer(serve, batch)
        answered = servable(signature, encoded(batch))
        rows += size
        differences = {name: _difference(want, answered[name]) for name, want in expected.items()}
        if any(not difference <= TOLERANCE for difference in differences.values()):
            again = _answer(serve, batch)
            varying |= {name for name, want in expected.items() if not _difference(want, again[name]) <= TOLERANCE}
        if varying == expected.keys():
            raise ExportRefused(
                "The model answers the same request differently each time, in every output.",
                code="NOT_PROVEN",
                fix="Let its layers draw from a keras.random.SeedGenerator, whose state is saved with the model.",
            )
        for name in expected.keys() - varying:
            if not differences[name] <= TOLERANCE:
                raise ExportRefused(
                    f"At batch size {size} the output {name!r} of the signature {signature!r} differs from the model "
                    f"in memory by {differences[name]:g}.",
                    code="ANSWERS_DIFFER",
                    fix="Report this model: an export must not change its answers.",
                )
            largest = max(largest, differences[name])
    return largest, rows


def _difference(want: NDArray[Any], have: NDArray[Any]) -> float:
    """Return the largest difference of numbers, 0 of what is equal, infinity of all else."""
    is_float = want.dtype.kind == "f"
    if np.array_equal(want, have, equal_nan=is_float):
        return 0.0
    return float(np.max(np.abs(want - have))) if is_float and want.shape == have.shape else float("inf")

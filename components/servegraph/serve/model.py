"""One loaded SavedModel: tried when it is loaded, then asked through its lane. Imports TensorFlow when it loads."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from servegraph import text_operations
from servegraph.answers import left_out
from servegraph.answers.samples import specs_of
from servegraph.errors import DataError, ModelError, Refusal, RequestError
from servegraph.quiet_tensorflow import import_tensorflow_quietly
from servegraph.savedmodel.graph import SERVING_TAG
from servegraph.serve.arrays import Array
from servegraph.serve.calls import Call, answers_close, cheapest_call, public_call
from servegraph.serve.decode import PredictRequest
from servegraph.serve.lane import Lane, LaneLimits, Outcome
from servegraph.serve.methods import Method, decode_for, encode_for
from servegraph.serve.settings import DEFAULT_BATCH_ROWS, read_settings
from servegraph.serve.sharing import answer, different_rows, in_one, is_shareable, share
from servegraph.serve.signatures import ServingGraph, read_serving_graph
from servegraph.serve.trial import Trial, made_up_requests, stored_trials
from servegraph.storage import open_dir
from servegraph.storage.local import require_files
from servegraph.tensorflow_message import first_cause

_log = logging.getLogger(__name__)

Defaults = Mapping[str, Mapping[str, Array]]

# What a model's operations may blame on the request; all else is the model's or the machine's fault.
_CALLER_ERRORS = ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE")

# Another kind of processor sums in another order; a wrong model differs by more. A deploy is stricter.
_GOLDEN_RTOL, _GOLDEN_ATOL = 1e-2, 1e-3

_ENOUGH_ROWS, _TRIAL_S = 4, 1.0  # of rows that differ, where a model takes so long that more would hold up its loading

# Larger bodies are decoded beside the event loop, which meanwhile answers others.
INLINE_BODY_BYTES = 64 << 10
_decoders = ThreadPoolExecutor(2, thread_name_prefix="decode")


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded and run: rows of a shared call (1: none is shared), and the limits of its line.

    `batch_rows` None takes those stored with the model, if `uses_settings`, else the default. `is_probed`: whether it
    must answer the golden requests stored with it before it takes traffic.
    """

    batch_rows: int | None = None
    is_probed: bool = True
    uses_settings: bool = True
    lane: LaneLimits = field(default_factory=LaneLimits)


class Model:
    """A loaded version of a model."""

    is_routine = False

    def __init__(
        self, loaded: Any, graph: ServingGraph, options: ModelOptions, name: str, defaults: Defaults | None = None
    ) -> None:
        """Keep `loaded`, which `tf.saved_model.load` returned: its functions hold their variables weakly.

        `defaults` are, by signature, the inputs that a request may leave out.
        """
        self.graph = graph
        self.shareable: frozenset[str] = frozenset()
        self._loaded = loaded
        self._defaults = whole = defaults or {}
        calls = {name: public_call(loaded.signatures[name]) for name in graph.signatures}
        self._calls: dict[str, Call] = calls

        def run(signature_name: str, inputs: Mapping[str, Array], _keep: Any = loaded) -> Mapping[str, Array]:
            left_out = whole.get(signature_name)
            return _run(calls[signature_name], {**left_out, **inputs} if left_out else inputs)

        # No closure holds the model itself: once no request does, it is freed, and the threads of its lane end.
        self.run = run
        batch_rows = options.batch_rows or DEFAULT_BATCH_ROWS
        self._batch_rows = batch_rows
        shareable_now: set[str] = set()
        self._shareable_now = shareable_now
        self.lane = Lane(
            lambda requests: answer(requests, run, encode_for),
            lambda waiting: share(waiting, shareable_now, batch_rows),
            options.lane,
            name,
        )

    @property
    def signatures(self) -> Mapping[str, Any]:
        """What a client may send, by name."""
        return self.graph.signatures

    @property
    def load(self) -> tuple[int, int]:
        """How many requests wait, and how many run."""
        return self.lane.load

    def ask(self, method: Method, body: bytes, done: Callable[[Outcome], None]) -> None:
        """Call `done` with the JSON answer to `body` or the error, now or later, in this thread, the event loop's.

        Raises:
            RequestError: the request does not match the signature.
            Refusal: too many requests wait.
        """
        if len(body) <= INLINE_BODY_BYTES:
            self.lane.ask(decode_for(method, body, self.graph), done)
            return
        loop = asyncio.get_running_loop()
        decoded = loop.run_in_executor(_decoders, decode_for, method, body, self.graph)
        decoded.add_done_callback(lambda future: self._ask_decoded(future, done))

    def _ask_decoded(self, decoded: asyncio.Future[PredictRequest], done: Callable[[Outcome], None]) -> None:
        error = decoded.exception()
        if error is None:
            try:
                self.lane.ask(decoded.result(), done)
            except Exception as exc:  # handed to whoever asked
                done(exc)
        else:
            # Not raised here, and without its frames: one of them would hold `decoded`, which holds the error, and all
            # that was decoded would stay until Python looks for circles.
            error.__traceback__ = None
            done(error)  # type: ignore[arg-type]

    def try_out(self, stored: Sequence[Trial], meta_graph: Any) -> None:
        """Ask the stored requests, and settle the cheapest call and what may share one by made-up requests.

        Raises:
            ModelError: a golden request is answered otherwise than recorded (code `GOLDEN_MISMATCH`), or a warmup
                request fails (`WARMUP_FAILED`).
        """
        by_signature: dict[str, list[Mapping[str, Array]]] = {name: [] for name in self.graph.signatures}
        for trial in stored:
            self._ask_stored(trial)
            by_signature[trial.signature_name].append({**self._defaults.get(trial.signature_name, {}), **trial.inputs})
        for name, signature in self.graph.signatures.items():
            made_up = made_up_requests(name, signature, meta_graph)
            examples = by_signature[name][:4]
            examples += [several for several in made_up[:1] if self._answer_of(name, several) is not None]
            self._calls[name] = cheapest_call(self._loaded.signatures[name], examples)
            if (
                self._batch_rows > 1
                and is_shareable(signature)
                and self._rows_are_independent(name, [*made_up[1:], *examples])
            ):
                self._shareable_now.add(name)
        self.shareable = frozenset(self._shareable_now)

    def _ask_stored(self, trial: Trial) -> None:
        try:
            found = self.run(trial.signature_name, trial.inputs)
        except (RequestError, Refusal, TypeError, ValueError) as exc:
            raise ModelError(
                f"A request stored with the model ({trial.signature_name}) fails: {exc}",
                code="WARMUP_FAILED",
                fix="Write the warmup requests again, or remove them.",
            ) from exc
        if trial.outputs is None:
            return
        wanted = {name: recorded.values for name, recorded in trial.outputs.items()}
        same = {name: recorded.same_of(found[name]) for name, recorded in trial.outputs.items() if name in found}
        asked_for = {name: values for name, values in same.items() if values is not None}
        if not answers_close(asked_for, wanted, rtol=_GOLDEN_RTOL, atol=max(_GOLDEN_ATOL, trial.within)):
            raise ModelError(
                f"A golden request ({trial.signature_name}) is answered otherwise than recorded.",
                code="GOLDEN_MISMATCH",
                fix="Export or optimize the model again.",
            )

    def _answer_of(self, name: str, inputs: Mapping[str, Array]) -> Mapping[str, Array] | None:
        """Return the answer to a request that may well not fit, as made-up values, None where there is none."""
        try:
            return self.run(name, inputs)
        except Exception as exc:
            _log.debug("a made-up request of %s fails: %s", name, exc)
            return None

    def _rows_are_independent(self, name: str, examples: list[Mapping[str, Array]]) -> bool:
        """Whether each row of the examples gets alone the answer that it gets among others that differ from it.

        Some models take one record at a time, whatever their signature says: what fails then is no failure of theirs.
        """
        from servegraph.answers.generated import say_something

        has_said = False
        for rows in different_rows(examples):
            answers: list[tuple[Mapping[str, Array], Mapping[str, Array]]] = []
            begun_s = time.monotonic()
            for row in rows:
                if (found := self._answer_of(name, row)) is not None:
                    answers.append((row, found))
                if len(answers) >= _ENOUGH_ROWS and time.monotonic() - begun_s > _TRIAL_S:
                    break
            if len(answers) < 2:
                continue
            try:
                together = self.run(name, in_one([row for row, _ in answers]))
            except Exception as exc:
                _log.info("signature %s: records cannot be asked in one call, so none share one: %s", name, exc)
                return False
            for number, (_, alone) in enumerate(answers):
                part = {key: array[number : number + 1] for key, array in together.items()}
                if not answers_close(alone, part):
                    _log.warning("signature %s: a row's answer depends on the others; none share a call", name)
                    return False
            has_said = has_said or say_something([together])
        return has_said


def load_model(directory: Path, options: ModelOptions | None = None) -> Model:
    """Load the MetaGraph tagged `serve` of the SavedModel in `directory`, and try it.

    Raises:
        ModelError: it is not a SavedModel, is damaged, needs what this TensorFlow does not have, or does not answer
            the requests stored with it.
        StorageError: there is a pipe or a device in it, at which TensorFlow would wait for ever.
    """
    require_files(directory)
    graph = read_serving_graph(open_dir(directory))
    import_tensorflow_quietly()
    import tensorflow as tf

    _leave_tensorflow_to_itself()
    text_operations.register()
    try:
        loaded = _loaded(str(directory))
    except Exception as exc:  # TensorFlow raises ValueError, OSError, KeyError, OpError, … for damaged models
        raise ModelError(
            f"TensorFlow {tf.__version__} cannot load {str(directory)!r}: {first_cause(str(exc))}",
            code="MODEL_NOT_LOADED",
            fix="Look at it with `servegraph inspect`.",
        ) from exc
    options = options or ModelOptions()
    if options.batch_rows is None:
        stored = read_settings(directory) if options.uses_settings else None
        options = replace(options, batch_rows=DEFAULT_BATCH_ROWS if stored is None else stored.batch_rows)
    meta_graph = meta_graph_of(directory)
    name = f"{directory.parent.name}-{directory.name}"
    model = Model(loaded, graph, options, name, _defaults_of(graph))
    model.try_out(stored_trials(directory, graph.signatures, with_golden=options.is_probed), meta_graph)
    return model


def _loaded(path: str) -> Any:
    """Load a model; where its Python objects keep it from that, as TensorFlow Serving does, which passes over them.

    TensorFlow 2.21 cannot make objects again that an older Keras wrote with its optimizer, or TF-Agents.
    """
    import tensorflow as tf

    from servegraph.saved_model_loading import loaded_with, without_objects

    try:
        return tf.saved_model.load(path, tags=[SERVING_TAG])
    except Exception as of_objects:
        try:
            with loaded_with(without_objects):
                loaded = tf.saved_model.load(path, tags=[SERVING_TAG])
        except Exception:  # then it is not the objects
            raise of_objects from None
    _log.info("The Python objects of %s cannot be made again; it is served without them.", path)
    return loaded


@functools.cache
def _leave_tensorflow_to_itself() -> None:
    """Keep the garbage collector from the million objects of TensorFlow's modules, which stay anyway.

    Looking through them takes a fraction of a second in which nothing is answered, at each collection.
    """
    gc.collect()
    gc.freeze()


def meta_graph_of(directory: Path) -> Any:
    """Return the MetaGraphDef, for what the texts that it reads must be; None where it cannot be read."""
    from tensorflow.python.saved_model.loader_impl import parse_saved_model

    try:
        graphs = parse_saved_model(str(directory)).meta_graphs
    except Exception:  # it has been loaded: this reading is for examples only
        return None
    return next((graph for graph in graphs if list(graph.meta_info_def.tags) == [SERVING_TAG]), None)


def _defaults_of(graph: ServingGraph) -> Defaults:
    """Return by signature the values of the inputs that a request may leave out.

    Raises:
        ModelError: one is no value of its input (code `BAD_DEFAULT`).
    """
    found = {}
    for name, signature in graph.signatures.items():
        specs = specs_of(signature)
        if not graph.declares_shapes:
            specs = {key: replace(spec, shape=None) for key, spec in specs.items()}
        try:
            found[name] = left_out.defaults(specs)
        except DataError as misfit:
            fix = "Export the model again, with a default that is a value of its input."
            raise ModelError(f"Signature {name!r}: {misfit.message}", code="BAD_DEFAULT", fix=fix) from misfit
    return {name: values for name, values in found.items() if values}


def _run(call: Call, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    import tensorflow as tf

    try:
        return call(inputs)
    except tf.errors.OpError as exc:
        code = _status_name(exc)
        message = first_cause(exc.message)
        if code in _CALLER_ERRORS:
            raise RequestError(message, code=code) from exc
        raise Refusal(message, code=code) from exc


def _status_name(error: Any) -> str:
    """Return TensorFlow's name of the status, `INVALID_ARGUMENT`, from the class `InvalidArgumentError`."""
    words = re.findall("[A-Z][a-z]*", type(error).__name__.removesuffix("Error"))
    return "_".join(words).upper() or "UNKNOWN"

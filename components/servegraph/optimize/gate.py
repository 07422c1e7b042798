"""The gate: does a changed model still answer as the original did, through each loader that takes the original?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from servegraph.answers import samples as sampling
from servegraph.answers.ask import Loader, Servable
from servegraph.answers.compare import Agreement, compare
from servegraph.answers.samples import InputSpec, Samples
from servegraph.errors import DataError, ModelError
from servegraph.savedmodel.graph import MetaGraph, SavedModelGraph

BATCH = 64
ROUNDING = 1e-5  # of the largest value of the output: float32 has 24 bits, a deep net loses a few
LOADERS: tuple[Loader, ...] = ("session", "v2")  # TF Serving's way first


@dataclass(frozen=True)
class Question:
    """Samples for one signature through one loader, and what the original answered to each batch."""

    tags: tuple[str, ...]
    loader: Loader
    signature: str
    samples: Samples
    answers: list[dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Evidence:
    """Everything the original was asked; `silent` says what could not be asked, and why."""

    questions: tuple[Question, ...]
    silent: Mapping[str, str]

    @property
    def generated(self) -> bool:
        """Whether all samples were made up, so that agreement says nothing about accuracy."""
        return all(question.samples.generated for question in self.questions)

    @property
    def rows(self) -> int:
        """The records asked, counted once whatever the number of loaders."""
        return sum(q.samples.rows for q in self.questions if q.loader == self.questions[0].loader)

    @property
    def main(self) -> Question:
        """The question that stands for the model: `serving_default` if it has one."""
        return next((q for q in self.questions if q.signature == "serving_default"), self.questions[0])


def ask_original(path: Path, graph: SavedModelGraph, samples: str | None) -> Evidence:
    """Ask every signature of the model at `path`: those whose inputs the samples fill, the others made-up records.

    Raises:
        DataError: the samples fit no signature, or cannot be read.
    """
    questions: list[Question] = []
    silent: dict[str, str] = {}
    for meta_graph in graph.meta_graphs:
        records = {
            name: _records(signature, samples)
            for name, signature in meta_graph.signatures.items()
            if not name.startswith("__saved_model")
        }
        if samples and records and all(isinstance(found, DataError) for found in records.values()):
            raise next(found for found in records.values() if isinstance(found, DataError))
        for loader in LOADERS:
            answered, why = _ask(path, meta_graph, loader, records)
            questions += answered
            silent.update(why)
    return Evidence(tuple(questions), silent)


def measure(path: Path, evidence: Evidence) -> dict[Loader, Agreement]:
    """Ask the model at `path` the same questions and return, per loader, how far its answers are from the original's.

    Raises:
        ModelError: it cannot be loaded or asked.
        ValueError: its outputs have other names or shapes.
    """
    found: dict[Loader, Agreement] = {}
    for loader in dict.fromkeys(question.loader for question in evidence.questions):
        asked = [question for question in evidence.questions if question.loader == loader]
        have: list[dict[str, NDArray[Any]]] = []
        for tags in dict.fromkeys(question.tags for question in asked):
            with Servable(path, tags=tags, loader=loader) as servable:
                for question in asked:
                    if question.tags == tags:
                        batches = question.samples.batches(BATCH)
                        have += [servable(question.signature, batch) for batch in batches]
        found[loader] = compare([answer for question in asked for answer in question.answers], have)
    return found


def objection(found: Mapping[Loader, Agreement], *, lossless: bool, min_agreement: float) -> str:
    """Return why a rung with these agreements must be undone, empty if it may stay.

    A lossless rung keeps every bit in a session. tf.saved_model.load builds other calls around the same operations
    once the object graph is gone, and TensorFlow fuses them differently: there float32 rounding is allowed.
    """
    for loader, agreement in found.items():
        where = f"through the {loader} loader"
        if agreement.new_non_finite:
            return f"undone: {agreement.new_non_finite} answers became NaN or infinite {where}"
        if lossless and loader == "session" and not agreement.identical:
            return f"undone: a lossless rung changed an answer by {agreement.max_abs_diff:g} {where}"
        if lossless and (agreement.agreement < 1 or agreement.max_relative_diff > ROUNDING):
            return f"undone: a lossless rung changed an answer by {agreement.max_abs_diff:g} {where}"
        if agreement.agreement < min_agreement:
            return f"undone: agreement {agreement.agreement:.4f} is below {min_agreement} {where}"
    return ""


def _records(signature: Any, samples: str | None) -> Samples | DataError:
    """Return the samples as the signature takes them, made-up ones without samples, or why the samples do not fit."""
    specs = {name: InputSpec(tensor.dtype, tensor.shape) for name, tensor in signature.inputs.items()}
    try:
        return sampling.read(samples, specs) if samples else sampling.generate(specs)
    except DataError as misfit:
        return misfit


def _ask(
    path: Path, meta_graph: MetaGraph, loader: Loader, records: Mapping[str, Samples | DataError]
) -> tuple[list[Question], dict[str, str]]:
    tags = tuple(meta_graph.tags)
    questions, silent = [], {}
    try:
        with Servable(path, tags=tags, loader=loader) as servable:
            for name, found in records.items():
                what = f"signature {name!r} of {list(tags)} through the {loader} loader"
                if isinstance(found, DataError):
                    silent[what] = f"the samples do not fit it: {found.message}"
                    continue
                try:
                    answers = [servable(name, batch) for batch in found.batches(BATCH)]
                    questions.append(Question(tags, loader, name, found, answers))
                except ModelError as exc:
                    silent[what] = exc.message
    except ModelError as exc:
        silent[f"{list(tags)} through the {loader} loader"] = exc.message
    return questions, silent

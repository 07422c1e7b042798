"""The proof that an export goes out with: it holds nothing of training, and its answers are those of the source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from servegraph import storage
from servegraph.answers import gate
from servegraph.answers.evidence import Evidence
from servegraph.answers.gate import Measured
from servegraph.answers.tolerance import Tolerance
from servegraph.errors import ExportRefused, ModelError
from servegraph.savedmodel.reachability import training_baggage


@dataclass(frozen=True)
class Proof:
    """How many records were asked, the largest difference of an answer, and what could not be asked."""

    rows: int
    max_abs_diff: float
    notes: tuple[str, ...]


def refuse_baggage(path: Path) -> None:
    """Raise `ExportRefused` (`TRAINING_BAGGAGE`) where the SavedModel holds what is there only for training."""
    baggage = training_baggage(storage.open_dir(path))
    if baggage:
        raise ExportRefused(
            f"The exported graph holds what serving must not: {', '.join(f'{b.kind} {b.name}' for b in baggage[:5])}.",
            code="TRAINING_BAGGAGE",
            fix="Make what serves free of training operations, or leave out the signature that trains, by naming those "
            "that are wanted: --signature serving_default=serving_default.",
        )


def require_asked(evidence: Evidence) -> None:
    """Raise `ExportRefused` (`NOT_PROVEN`) where nothing could be asked, so that nothing can be compared."""
    if not evidence.questions:
        raise ExportRefused(
            f"No answer of the source could be compared: {' '.join(evidence.silent.values())}",
            code="NOT_PROVEN",
            fix="Give --samples with records that the model can answer.",
        )


def require_same_answers(out: Path, evidence: Evidence, what: str, why: str) -> list[Measured]:
    """Ask the model at `out` what the source was asked, and return what was measured.

    `what` begins the message where answers differ, `why` ends its advice.

    Raises:
        ExportRefused: an answer is another, or there is none (code `ANSWERS_DIFFER`).
    """
    measured: list[Measured] = []
    try:
        measured = gate.measure(out, evidence, evidence.loaders)
        objection = gate.objection(measured, evidence, "none", Tolerance())
    except (ModelError, ValueError) as exc:
        objection = str(exc)
    if objection:
        raise ExportRefused(
            f"{what}: {objection}.",
            code="ANSWERS_DIFFER",
            fix=f"Report this model: {why}.",
        )
    return measured

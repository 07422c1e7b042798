"""Optimize a SavedModel: climb the ladder, gate every rung, keep the least lossy result that fits the budget."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servegraph import storage
from servegraph.answers import golden
from servegraph.answers.ask import Loader, Servable
from servegraph.answers.compare import Agreement
from servegraph.errors import BudgetNotMet, InputError, ModelError, StorageError
from servegraph.machines.sizes import format_size, parse_size
from servegraph.optimize import draft as drafts
from servegraph.optimize import gate
from servegraph.optimize.draft import Draft
from servegraph.optimize.rungs import RUNGS, Rung
from servegraph.progress import Progress
from servegraph.savedmodel.graph_reader import read_saved_model
from servegraph.savedmodel.layout import content_digest, require_saved_model

QUOTA_ADVICE = (
    "Allow more loss (--min-agreement), leave assets out or shorten vocabularies, split the model, "
    "or ask for more quota and state it with a larger --budget (R14)."
)


@dataclass(frozen=True)
class Goal:
    """What to reach: a budget in bytes (None: as small as lossless rungs make it) within a tolerance."""

    budget_bytes: int | None = None
    min_agreement: float = 0.99
    rungs: tuple[str, ...] = tuple(rung.name for rung in RUNGS)


@dataclass(frozen=True)
class Step:
    """One rung that was tried. `bytes` is the size the model had with it; `reason` says why it was not kept.

    `max_abs_diff` is through the first loader that takes the original (a session, if one does), `agreement` the worst.
    """

    name: str
    what: str
    kept: bool
    bytes: int
    max_abs_diff: float | None
    agreement: float | None
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Optimized:
    """The result: sizes of the whole directory, the steps, and what the evidence was."""

    before_bytes: int
    after_bytes: int
    budget_bytes: int | None
    steps: tuple[Step, ...]
    sample_rows: int
    samples_generated: bool
    golden_requests: int
    digest: str
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the result is within the budget."""
        return self.budget_bytes is None or self.after_bytes <= self.budget_bytes

    def figures(self) -> dict[str, float]:
        """Return the figures of the result by name, for `Metrics`."""
        kept = [step for step in self.steps if step.kept]
        return {
            "before_bytes": self.before_bytes,
            "after_bytes": self.after_bytes,
            "agreement": min((s.agreement for s in kept if s.agreement is not None), default=1.0),
            "max_abs_diff": max((s.max_abs_diff for s in kept if s.max_abs_diff is not None), default=0.0),
        }

    def require_fit(self) -> None:
        """Raise `BudgetNotMet` where the result is larger than the budget."""
        if not self.fits:
            tried = ", ".join(
                f"{s.name} {format_size(s.bytes)}{'' if s.kept else f' ({s.reason})'}" for s in self.steps
            )
            raise BudgetNotMet(
                f"The model has {format_size(self.after_bytes)} where {format_size(self.budget_bytes or 0)} are "
                f"allowed; it began with {format_size(self.before_bytes)}, and these rungs were tried: {tried}.",
                fix=QUOTA_ADVICE,
            )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document of `servegraph optimize --json`."""
        return {
            "before_bytes": self.before_bytes,
            "after_bytes": self.after_bytes,
            "budget_bytes": self.budget_bytes,
            "fits": self.fits,
            "steps": [vars(step) for step in self.steps],
            "sample_rows": self.sample_rows,
            "samples_generated": self.samples_generated,
            "golden_requests": self.golden_requests,
            "digest": self.digest,
            "notes": list(self.notes),
        }


def optimize(model: Path, out: Path, goal: Goal, samples: str | None = None) -> Optimized:
    """Write the smallest lossless form of `model` to `out`, then lossy ones only as far as the budget asks.

    `out` appears when it is complete. It is written even where the budget is not met: it is the best that was reached.

    Raises:
        InputError: an unknown rung, a tolerance outside 0 … 1, or `out` exists already.
        ModelError: `model` is no SavedModel, or a damaged one.
        DataError: the samples fit no signature.
        StorageError: `out` cannot be written.
    """
    _check(goal, out)
    require_saved_model(storage.open_dir(model))
    original = drafts.read(model)
    notes = [f"MetaGraph {number} is left as it is, because {why}." for number, why in original.untouched.items()]
    evidence, refused = _ask(model, samples)
    notes += refused
    if evidence is not None and evidence.generated:
        notes.append("The samples were made up from the signature: the agreement says nothing about accuracy.")
    before = _size(model)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        workspace = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as exc:
        raise StorageError(f"{out} cannot be written: {exc}.", code="CANNOT_WRITE") from exc
    try:
        best, steps = _climb(original, goal, evidence, workspace, before)
        lines = 0
        if evidence is not None:
            lines = _record_golden(best, evidence)
        after, digest = _size(best), content_digest(storage.open_dir(best))
        if out.exists():
            out.rmdir()
        best.rename(out)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return Optimized(
        before_bytes=before,
        after_bytes=after,
        budget_bytes=goal.budget_bytes,
        steps=tuple(steps),
        sample_rows=evidence.rows if evidence else 0,
        samples_generated=evidence.generated if evidence else True,
        golden_requests=lines,
        digest=digest,
        notes=tuple(notes),
    )


def optimize_artifact(
    model: str, out: str, *, samples: str | None, budget: str, min_agreement: float, rungs: Sequence[str]
) -> Optimized:
    """Optimize for a pipeline, whose parameters are plain values; replaces what a failed attempt left.

    Raises: as `optimize`, and InputError for a budget that is no size.
    """
    shutil.rmtree(out, ignore_errors=True)
    goal = Goal(
        budget_bytes=parse_size(budget) if budget else None,
        min_agreement=min_agreement,
        rungs=tuple(rungs) or Goal.rungs,
    )
    return optimize(Path(model), Path(out), goal, samples)


def _check(goal: Goal, out: Path) -> None:
    unknown = sorted(set(goal.rungs) - {rung.name for rung in RUNGS})
    if unknown:
        raise InputError(
            f"There is no rung {', '.join(unknown)}.",
            code="UNKNOWN_RUNG",
            fix=f"The rungs are {', '.join(rung.name for rung in RUNGS)}.",
        )
    if not 0 <= goal.min_agreement <= 1:
        raise InputError(f"The agreement {goal.min_agreement} is not between 0 and 1.", code="BAD_TOLERANCE")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already.", code="OUTPUT_EXISTS", fix="Give a new directory.")


def _ask(model: Path, samples: str | None) -> tuple[gate.Evidence | None, list[str]]:
    """Return the original's answers, or None and why there are none: then its graph is not touched."""
    evidence = gate.ask_original(model, read_saved_model(storage.open_dir(model)), samples)
    silent = [f"Not asked: {what}: {why}" for what, why in evidence.silent.items()]
    if not evidence.questions:
        return None, ["The graph is left as it is, because the original could not be asked.", *silent]
    return evidence, silent


def _climb(
    original: Draft, goal: Goal, evidence: gate.Evidence | None, workspace: Path, before: int
) -> tuple[Path, list[Step]]:
    """Try the rungs in order and return the directory of the best model, and the steps."""
    best: Path | None = None
    best_draft, size = original, before
    steps: list[Step] = []
    chosen = [rung for rung in RUNGS if rung.name in goal.rungs]
    with Progress("optimize", total=len(chosen)) as progress:
        for rung in chosen:
            started = time.monotonic()
            if not rung.lossless and (goal.budget_bytes is None or size <= goal.budget_bytes):
                steps.append(
                    Step(
                        rung.name,
                        rung.what,
                        False,
                        size,
                        None,
                        None,
                        0.0,
                        "not needed: it fits" if goal.budget_bytes else "not needed: no budget asks for it",
                    )
                )
                continue
            if evidence is None:
                steps.append(Step(rung.name, rung.what, False, size, None, None, 0.0, "no evidence, see notes"))
                continue
            draft, path = rung.apply(best_draft), workspace / rung.name
            drafts.write(draft, path)
            found, reason = _judge(rung, path, evidence, goal)
            new_size = _size(path)
            if not reason and new_size >= size:
                reason = "saves nothing"
            steps.append(
                Step(
                    name=rung.name,
                    what=rung.what,
                    kept=not reason,
                    bytes=new_size,
                    max_abs_diff=next((a.max_abs_diff for a in found.values()), None),
                    agreement=min((a.agreement for a in found.values()), default=None),
                    seconds=round(time.monotonic() - started, 3),
                    reason=reason,
                )
            )
            progress.advance(f"{rung.name}: {size} → {new_size} bytes{', ' + reason if reason else ''}")
            if reason:
                shutil.rmtree(path)
                continue
            if best is not None:
                shutil.rmtree(best)
            best, best_draft, size = path, draft, new_size
    if best is None:
        best = workspace / "original"
        drafts.copy_unchanged(original.source, best)
    return best, steps


def steps_kept(steps: Sequence[Step]) -> bool:
    """Whether any step was kept."""
    return any(step.kept for step in steps)


def _judge(rung: Rung, path: Path, evidence: gate.Evidence, goal: Goal) -> tuple[Mapping[Loader, Agreement], str]:
    """Return the agreement per loader, and why the rung must be undone, empty if it may stay."""
    try:
        found = gate.measure(path, evidence)
    except (ModelError, ValueError) as exc:
        return {}, f"undone: {exc}"
    return found, gate.objection(found, lossless=rung.lossless, min_agreement=goal.min_agreement)


def _record_golden(best: Path, evidence: gate.Evidence) -> int:
    question = evidence.main
    with Servable(best, tags=question.tags, loader=question.loader) as servable:
        return golden.write(best, servable, question.signature, question.samples, _size(best))


def _size(path: Path) -> int:
    return sum(file.size_bytes for file in storage.open_dir(path).files())

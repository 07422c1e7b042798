"""Why a step runs again: what of it, and of all before it, differs between two runs.

An engine takes a step from its cache where its image, command and inputs are those of an earlier run. That is compared
here: what is the same gets the cached result, what differs has a line that says what it was and what it is. Where the
engine does not tell what an input held, that is said, and not taken for the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from servegraph.data.digest import NOT_CACHED
from servegraph.errors import InputError
from servegraph.suggestion import did_you_mean
from servegraph_pipelines import step_keys
from servegraph_pipelines.bindings import Output, Task, tasks_of
from servegraph_pipelines.specification import Specification
from servegraph_pipelines.step_keys import StepKey

_LONGEST = 80  # characters of a value
_WHAT = {"image": "image", "command": "code", "args": "arguments", "env": "environment"}


@dataclass(frozen=True)
class PastRun:
    """A run that was: what ran, on which parameters."""

    id: str
    specification: Specification
    parameters: Mapping[str, Any]
    contents: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict
    )  # by step and input without `_digest`, as known


@dataclass(frozen=True)
class Reason:
    """One thing that differs: in `step`, which is the one asked for or one before it."""

    step: str
    what: str
    before: str
    now: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.step}: {self.what}: {self.before} → {self.now}"


def require_step(run: PastRun, step: str) -> None:
    """Raise `InputError` (code `UNKNOWN_STEP`) where a run has no such step."""
    names = [known.name for known in run.specification.steps]
    if step not in names:
        what = f"The run {run.id} has no step {step!r}."
        raise InputError(what, code="UNKNOWN_STEP", fix=f"{did_you_mean(step, names)}It has {', '.join(names)}.")


def why(step: str, before: PastRun, now: PastRun) -> list[Reason]:
    """Return what differs in a step and in those it depends on, its own first; empty where a cache would answer.

    Raises:
        InputError: one of the runs has no such step (code `UNKNOWN_STEP`).
    """
    for run in (before, now):
        require_step(run, step)
    found: list[Reason] = []
    asked = [step]
    for name in asked:
        old, new = _find(before, name), _find(now, name)
        if old is None or new is None:
            found.append(Reason(name, "step", "there" if old else "nothing", "there" if new else "nothing"))
            continue
        found += _differences(name, old, new)
        producers = dict.fromkeys(value.task for value in new.inputs.values() if isinstance(value, Output))
        asked += [producer for producer in producers if producer not in asked]
    return found


def why_here(step: str, before: Path, now: Path) -> list[Reason]:
    """Return what differs in a step of two runs on this machine, by content, and in those that wrote other inputs.

    Raises:
        InputError: one of the runs has no such step that succeeded (code `UNKNOWN_STEP`).
    """
    for run in (before, now):
        step_keys.require_step(run, step)
    found: list[Reason] = []
    asked = [step]
    for name in asked:
        old, new = step_keys.read(before / name), step_keys.read(now / name)
        if old is None or new is None:
            found.append(Reason(name, "step", "there" if old else "nothing", "there" if new else "nothing"))
            continue
        found += _differences_here(name, old, new)
        changed = [taken for key, taken in new.artifacts.items() if taken != old.artifacts.get(key)]
        producers = [producer for taken in changed for producer in taken.producer.split(",") if producer]
        asked += [producer for producer in producers if producer not in asked]
    return found


def _differences_here(name: str, old: StepKey, new: StepKey) -> Iterator[Reason]:
    if old.code != new.code:
        yield Reason(name, "code that ran", _short_digest(old.code), _short_digest(new.code))
    if old.command != new.command:
        yield Reason(name, "component", _short_digest(old.command), _short_digest(new.command))
    mine, its = ({**key.files, **{n: t.digest for n, t in key.artifacts.items()}} for key in (old, new))
    for key in sorted({*old.parameters, *new.parameters}):
        before, now = old.parameters.get(key), new.parameters.get(key)
        is_told_below = key.removesuffix("_digest") in its and not str(now).startswith(NOT_CACHED)
        if before != now and not is_told_below:
            yield Reason(name, f"input {key}", _short(before), _short(now))
    for key in sorted({*mine, *its}):
        if mine.get(key) != its.get(key):
            yield Reason(name, f"content of {key}", _short_digest(mine.get(key)), _short_digest(its.get(key)))


def _short_digest(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "nothing" if digest is None else "not read"


def _find(run: PastRun, name: str) -> Task | None:
    """Return a task with what is known of the outputs that it took; the line of an artifact says what it holds."""
    task = next((task for task in tasks_of(run.specification, run.parameters) if task.name == name), None)
    if task is None:
        return None
    contents = run.contents.get(name, {})
    told = {f"{key}_digest" for key in task.artifacts}
    inputs = {
        key: replace(value, content=contents.get(key.removesuffix("_digest"), "")) if is_output else value
        for key, value in task.inputs.items()
        if not ((is_output := isinstance(value, Output)) and key in told)
    }
    return replace(task, inputs=inputs)


def _differences(name: str, old: Task, new: Task) -> Iterator[Reason]:
    if not new.is_cached:
        yield Reason(name, "caching", "off" if not old.is_cached else "on", "off: it runs every time")
    for key, what in _WHAT.items():
        before, now = old.container.get(key), new.container.get(key)
        if before != now:
            is_code = key == "command"
            yield Reason(name, what, "another" if is_code else _short(before), "this" if is_code else _short(now))
    for key in sorted({*old.inputs, *new.inputs}):
        before, now = old.inputs.get(key), new.inputs.get(key)
        if isinstance(before, Output) and isinstance(now, Output) and _is_unknown(before, now):
            if new.is_cached:
                yield Reason(name, f"content of {key}", _short_digest(before.content), _short_digest(now.content))
        elif _plain(before) != _plain(now):
            yield Reason(name, f"input {key}", _short(before), _short(now))


def _is_unknown(before: Output, now: Output) -> bool:
    """Whether both come from the same task, and of one it is not known what it is."""
    return (before.task, before.key) == (now.task, now.key) and not (before.content and now.content)


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _short(value: Any) -> str:
    if isinstance(value, Output):
        return f"{value.key} of {value.task}" + (f" ({_short_digest(value.content)})" if value.content else "")
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"

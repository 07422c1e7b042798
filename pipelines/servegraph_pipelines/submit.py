"""`servegraph submit`: everything is chosen and checked first, then one run is sent and, if asked, waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal

from servegraph.errors import Refusal, ServegraphError
from servegraph_pipelines import resource_parameters
from servegraph_pipelines.engines.runs import Engine, RunOptions, RunRequest, RunState, StepState
from servegraph_pipelines.images import ImageChoice, for_local_target, for_trainer
from servegraph_pipelines.resources import EngineName, StepResources
from servegraph_pipelines.specification import Specification
from servegraph_pipelines.step_errors import known_error, last_raised

Caching = Literal["auto", "as-compiled", "off"]


@dataclass(frozen=True)
class Choices:
    """What is chosen for a pipeline when it is sent, instead of in its code.

    Caching `auto` is as compiled where every image is bound to its digest, else off: a key with a tag in it does not
    say what ran.
    """

    images: ImageChoice = field(default_factory=ImageChoice)
    resources: Mapping[str, StepResources] = field(default_factory=dict)
    caching: Caching = "auto"

    def apply(self, specification: Specification, engine: EngineName, parameters: Mapping[str, Any]) -> Specification:
        """Return the pipeline as the engine is given it; `trainer` and `target` say what its images must have.

        Raises:
            InputError: no such step or resources (codes `UNKNOWN_STEP`, `BAD_RESOURCES`), an image that the lock
                file does not have (`NOT_IN_LOCK`), or no image that could be chosen (`NO_PUBLIC_IMAGE`).
        """
        chosen = self.images.apply(for_local_target(for_trainer(specification, parameters), parameters))
        resource_parameters.refuse_twice(chosen, self.resources)
        resource_parameters.check(chosen, engine, parameters)
        chosen = chosen.with_resources({step: wanted.to_ir(engine) for step, wanted in self.resources.items()})
        is_bound = all("@sha256:" in image for image in chosen.images().values())
        keeps = self.caching == "as-compiled" or (self.caching == "auto" and is_bound)
        return chosen if keeps else chosen.without_caching()


def request_of(
    specification: Specification,
    parameters: Mapping[str, Any],
    options: RunOptions,
    name: str | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> RunRequest:
    """Return the request for a run, named after the pipeline and the second if it is not named."""
    own = name or f"{specification.name}-{now():%Y%m%d%H%M%S}"
    return RunRequest(own, specification, parameters, options)


def watch(
    engine: Engine,
    request: RunRequest,
    run_id: str,
    on_change: Callable[[RunState], None],
    *,
    poll_s: float = 10.0,
    timeout_s: float | None = None,
) -> RunState:
    """Return the state of the run when it is over; `on_change` is called with every state seen.

    Raises:
        Refusal: it is not over after `timeout_s` (code `STILL_RUNNING`); it goes on.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        state = engine.state(run_id)
        on_change(with_steps_of(request.specification, state))
        if state.is_over:
            return with_steps_of(request.specification, state)
        if deadline is not None and time.monotonic() > deadline:
            what = f"The run {run_id} is not over after {timeout_s:g} s; it goes on."
            raise Refusal(what, code="STILL_RUNNING", fix=f"Follow it: {state.link}")
        time.sleep(poll_s)


def with_steps_of(specification: Specification, state: RunState) -> RunState:
    """Return the state with the steps of the pipeline in their order; engines list tasks of their own among them."""
    found = {step.name: step for step in state.steps}
    steps = [found.get(step.name, StepState(step.name, "waiting")) for step in specification.steps]
    if state.status == "succeeded":  # what a condition left out, not every engine lists
        steps = [replace(step, status="skipped") if step.status == "waiting" else step for step in steps]
    return replace(state, steps=tuple(steps))


def failure(engine: Engine, state: RunState) -> ServegraphError | None:
    """Return why a run that is over did not succeed: the failing step's own error where its log can be read."""
    if state.status == "succeeded":
        return None
    fix = f"See the run: {state.link}"
    step = next((step for step in state.steps if step.status == "failed"), None)
    if step is None:
        words = state.message or f"it was {state.status}"
        return Refusal(f"The run {state.id} did not succeed: {words}", code="RUN_FAILED", fix=fix)
    lines = engine.log(state.id, step)
    if error := known_error(lines, f"Step {step.name}"):
        return error
    words = last_raised(lines) or step.message or state.message or "the engine does not say why"
    return Refusal(f"Step {step.name} failed: {words}", code="STEP_FAILED", fix=fix)

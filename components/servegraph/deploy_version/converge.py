"""The loop of every change to a service: look, do the first step that is missing, look again."""

from __future__ import annotations

from collections.abc import Callable

from servegraph.deploy_version.faults import Overtaken, Patience, Unavailable
from servegraph.deploy_version.plan import Step
from servegraph.deploy_version.remote import Seen
from servegraph.deploy_version.targets import OnStep
from servegraph.errors import DeployRefused

MOST_REPEATS = 5


def converge(
    look: Callable[[], Seen],
    missing: Callable[[Seen], tuple[Step, ...]],
    perform: Callable[[Step, Seen], None],
    patience: Patience,
    on_step: OnStep,
) -> Seen:
    """Do what `missing` says until it is nothing, and return what is there then.

    A fault that passes is waited out, and what it left is seen by the next look.

    Raises:
        DeployRefused: a step is refused, faults do not pass, or a step has no effect (code `NO_PROGRESS`).
    """
    last, repeats = None, 0
    while True:
        try:
            seen = look()
            steps = missing(seen)
            if not steps:
                return seen
            repeats = repeats + 1 if steps[0] == last else 0
            last = steps[0]
            if repeats > MOST_REPEATS:
                raise DeployRefused(
                    f"{last.action} ({last.detail}) was done {repeats} times without effect.",
                    code="NO_PROGRESS",
                    fix="See in the service's console what holds it up.",
                )
            on_step(f"{last.action}: {last.detail}")
            perform(last, seen)
            patience.relax()
        except (Unavailable, Overtaken) as fault:
            repeats = 0
            on_step(f"again, because {fault.message}")
            patience.pause(fault)

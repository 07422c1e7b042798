"""Routines at a deploy: whether their code may run there, and what they mean for the clients of the live version."""

from __future__ import annotations

from servegraph.deploy_version.plan import DeployRequest, ModelFacts
from servegraph.deploy_version.signature_gate import breaking_changes
from servegraph.errors import DeployRefused
from servegraph.routine.manifest import Routine
from servegraph.serve.signatures import Signatures

IMAGE_PYTHON = "3.11"  # images/serving/Dockerfile


def check_trust(request: DeployRequest, model: ModelFacts) -> None:
    """Refuse a model with a routine unless the request says that its code may run.

    Raises:
        DeployRefused: nobody said so (code `CODE_NOT_TRUSTED`).
    """
    if model.routine is not None and not request.trust_code:
        raise DeployRefused(
            f"{model.uri!r} brings Python code, the routine {model.routine.predictor}, to run where it is served.",
            code="CODE_NOT_TRUSTED",
            fix="Look at it in assets.extra/routine; deploy with --trust-code if it may run.",
        )


def check_wheels(routine: Routine) -> None:
    """Refuse wheels of another Python or system than the serving image has.

    Raises:
        DeployRefused: one is (code `WHEEL_FOR_ANOTHER_PYTHON`).
    """
    for wheel in routine.wheels:
        abi, platform = wheel.removesuffix(".whl").split("-")[-2:]
        is_for_python = abi in ("none", "abi3", f"cp{IMAGE_PYTHON.replace('.', '')}")
        if not is_for_python or not (platform == "any" or "linux" in platform):
            raise DeployRefused(
                f"{wheel} is not for Python {IMAGE_PYTHON} on Linux, which the serving image has.",
                code="WHEEL_FOR_ANOTHER_PYTHON",
                fix=f"Package it with --python-version {IMAGE_PYTHON} --platform manylinux_2_28_x86_64.",
            )


def breaks_clients(
    live: Signatures, live_routine: Routine | None, new: Signatures, new_routine: Routine | None
) -> tuple[str, ...]:
    """Return, a sentence each, what breaks for clients of the live version.

    What a routine takes and answers is in no file: of two routines the golden requests have to speak.
    """
    if live_routine is None and new_routine is None:
        return breaking_changes(live, new)
    if new_routine is None:
        assert live_routine is not None
        return (f"requests went to the routine {live_routine.predictor}, and now to the graph itself",)
    if live_routine is None:
        return (f"requests went to the graph itself, and now to the routine {new_routine.predictor}",)
    return ()

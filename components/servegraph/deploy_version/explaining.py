"""Explanations at a deploy: refused before anything is sent where they cannot work, else made from the signature."""

from __future__ import annotations

import json
from datetime import date
from typing import Any, cast

from servegraph.deploy_version.plan import ModelFacts, ServiceOptions, TargetName
from servegraph.errors import DeployRefused
from servegraph.explanations.metadata import (
    METADATA_FILE,
    ai_platform_config,
    count_problem,
    explained_output,
    vertex_spec,
)
from servegraph.explanations.rules import OF_A_ROUTINE, Method, explainable, is_prebuilt, numeric
from servegraph.savedmodel.graph import DEFAULT_SIGNATURE
from servegraph.storage import open_dir


def check_explanation(
    target: TargetName, options: ServiceOptions, model: ModelFacts, today: date, image: str | None = None
) -> None:
    """Refuse explanations that the service could not give.

    Raises:
        DeployRefused: it could not (code `NO_EXPLANATIONS`).
        InputError: which output is to be explained is not said (code `WHICH_OUTPUT`).
    """
    if options.explain is None and options.explanation is None:
        return
    if options.explain is not None and model.routine is not None:
        raise _refused(OF_A_ROUTINE, "Give an --explanation.")
    signature = model.signatures.get(DEFAULT_SIGNATURE)
    answer = explainable(target, signature, model.tensorflow_version, today, image)
    # What a routine answers may well be a number where the graph's outputs are none.
    if not answer.possible and (model.routine is None or today >= (answer.until or date.max)):
        raise _refused(answer.reason, "Deploy without it.")
    if target == "vertex" and options.network:
        raise _refused("only shared public endpoints explain.", "Leave --network out.")
    if options.explanation is not None:
        problem = count_problem(json.loads(options.explanation)) if target == "vertex" else None
        if problem:
            raise _refused(f"{problem}.", "Change the count.")
        return
    if options.explain not in answer.methods:
        methods = " and ".join(answer.methods)
        raise _refused(f"{options.explain} is not for this model and image; {methods} would be.", "Take another.")
    assert signature is not None
    explained_output(signature, options.explain_output)
    if target == "ai-platform" and METADATA_FILE not in {info.path for info in open_dir(model.uri).files()}:
        raise _refused(
            f"AI Platform reads {METADATA_FILE} beside the graph, which is not there.",
            "Write it: servegraph explain MODEL --platform ai-platform --write.",
        )


def spec_of(options: ServiceOptions, model: ModelFacts, image: str) -> dict[str, Any] | None:
    """Return the ExplanationSpec for Vertex AI, None where none is asked for or could be."""
    if options.explanation is not None:
        found: dict[str, Any] = json.loads(options.explanation)
        return found
    signature = model.signatures.get(DEFAULT_SIGNATURE)
    if options.explain is None or signature is None or model.routine is not None or not numeric(signature.outputs):
        return None
    prebuilt, method = is_prebuilt(image), cast("Method", options.explain)
    return vertex_spec(signature, method, options.explain_output, prebuilt=prebuilt, is_tf1=model.is_tf1)


def config_of(options: ServiceOptions) -> dict[str, Any] | None:
    """Return the ExplanationConfig for AI Platform, None where none is asked for."""
    if options.explanation is not None:
        found: dict[str, Any] = json.loads(options.explanation)
        return found
    return None if options.explain is None else ai_platform_config(cast("Method", options.explain))


def _refused(why: str, fix: str) -> DeployRefused:
    return DeployRefused(f"Its predictions cannot be explained: {why}", code="NO_EXPLANATIONS", fix=fix)

"""`servegraph explain MODEL --platform P`."""

from __future__ import annotations

import json
from datetime import date, datetime, timezone
from typing import Any

import click

from servegraph.errors import InputError, Refusal
from servegraph.explanations.metadata import (
    METADATA_FILE,
    ai_platform_config,
    ai_platform_metadata,
    vertex_spec,
)
from servegraph.explanations.rules import METHODS, OF_A_ROUTINE, Answer, Method, explainable
from servegraph.savedmodel.graph import Signature
from servegraph_pipelines.cli.outcome import echo, print_json

ELLIPSIS = "..."
MAX_SHOWN = 16  # values of a baseline in the text, one a line; --json and --write have them all
PLATFORMS = ("vertex", "ai-platform", "kserve", "local")


@click.command("explain")
@click.argument("model")
@click.option("--platform", type=click.Choice(PLATFORMS), default="vertex", show_default=True, help="Where it serves.")
@click.option("--image", help="Serving image on Vertex AI, if not servegraph's own.")
@click.option("--method", type=click.Choice(METHODS), help="How to explain.  [default: the first that is possible]")
@click.option("--output", help="Of several numeric outputs the one to explain.")
@click.option("--write", is_flag=True, help=f"Write {METADATA_FILE} into MODEL, where AI Platform reads it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    model: str,
    platform: str,
    image: str | None,
    method: Method | None,
    output: str | None,
    write: bool,
    as_json: bool,
) -> int:
    """Say whether a platform can explain the predictions of MODEL (path or gs://), and what it has to be told.

    What it has to be told is made from the signature: the inputs with baselines, the output, the method. `servegraph
    deploy --explain METHOD` sends the same; its `--explanation FILE` takes one that was edited. Exit code 1 where it is
    not possible.
    """
    from servegraph.routine.manifest import read_routine
    from servegraph.savedmodel.layout import require_saved_model
    from servegraph.serve.signatures import read_serving_graph
    from servegraph.storage import open_dir

    if write and platform != "ai-platform":
        raise InputError(
            f"Only AI Platform reads {METADATA_FILE}, not {platform}.",
            code="NOT_FOR_THIS_TARGET",
            fix="Give --platform ai-platform, or leave --write out: Vertex AI is told at the deploy.",
        )
    directory = open_dir(model)
    require_saved_model(directory)
    graph = read_serving_graph(directory)
    signature = graph.signatures.get("serving_default")
    today = datetime.now(timezone.utc).date()
    answer = explainable(platform, signature, graph.tensorflow_version, today, image)
    # What AI Platform was to be told can be said after its end.
    told_by = explainable(platform, signature, graph.tensorflow_version, date.min, image)
    if read_routine(directory) is not None:
        answer = told_by = Answer(False, f"{OF_A_ROUTINE} A deploy takes an --explanation of yours.")
    told: dict[str, Any] = {}
    if told_by.possible and signature is not None:
        chosen = _method(method, told_by)
        if platform == "vertex":
            told = _for_vertex(signature, chosen, output, image, is_tf1=not graph.has_object_graph)
        else:
            metadata = ai_platform_metadata(signature, output, is_tf1=not graph.has_object_graph)
            told = {"explanationConfig": ai_platform_config(chosen), METADATA_FILE: metadata}
    if write:
        if not told:
            raise Refusal(
                f"There is nothing to write: {platform} cannot explain it: {told_by.reason}",
                code="NO_EXPLANATIONS",
                fix="Leave --write out.",
            )
        directory.write_bytes(METADATA_FILE, json.dumps(told[METADATA_FILE], indent=2).encode() + b"\n")
    if as_json:
        until = None if answer.until is None else answer.until.isoformat()
        print_json({"platform": platform, **_plain(answer), "until": until, **told})
    else:
        echo(f"{platform} {'can' if answer.possible else 'cannot'} explain it: {answer.reason}")
        for name, value in told.items():
            click.echo(f"{name}: {json.dumps(_in_short(value), indent=2)}".replace(f'"{ELLIPSIS}"', ELLIPSIS))
    return 0 if answer.possible else 1


def _in_short(value: Any, *, is_part: bool = False) -> Any:
    """Return a value with an ellipsis after the first of each list where there are many, as in an image's baseline."""
    if isinstance(value, dict):
        return {key: _in_short(one) for key, one in value.items()}
    if not isinstance(value, list):
        return value
    is_long = is_part or _count(value) > MAX_SHOWN
    rest = [ELLIPSIS] if is_long and len(value) > 2 else [_in_short(one, is_part=is_long) for one in value[1:]]
    return [*(_in_short(one, is_part=is_long) for one in value[:1]), *rest]


def _count(value: Any) -> int:
    return sum(map(_count, value)) if isinstance(value, list) else 1


def _plain(answer: Answer) -> dict[str, Any]:
    return {"possible": answer.possible, "reason": answer.reason, "methods": list(answer.methods)}


def _method(wanted: Method | None, answer: Answer) -> Method:
    if wanted is not None and wanted not in answer.methods:
        raise Refusal(
            f"{wanted} is not for this model and image.",
            code="NO_EXPLANATIONS",
            fix=f"Take {' or '.join(answer.methods)}.",
        )
    return wanted or answer.methods[0]


def _for_vertex(
    signature: Signature, method: Method, output: str | None, image: str | None, *, is_tf1: bool
) -> dict[str, Any]:
    """Return the spec, held to the published schema where that is installed."""
    from servegraph.deploy_version.discovery import load

    spec = vertex_spec(signature, method, output, prebuilt="/vertex-ai/prediction/" in (image or ""), is_tf1=is_tf1)
    problems = load("aiplatform", "v1").value_problems("GoogleCloudAiplatformV1ExplanationSpec", spec)
    assert not problems, problems
    return {"explanationSpec": spec}

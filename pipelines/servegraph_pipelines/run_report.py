"""The end of a local run: ask the deployed version one real record, write `run.json` and the report page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servegraph import storage
from servegraph.errors import Refusal, ServegraphError, StorageError
from servegraph.pages.render import render
from servegraph_pipelines import flows
from servegraph_pipelines.run import PAGES, Run
from servegraph_pipelines.run_record import (
    Sample,
    StepOutputs,
    commands,
    first_sample,
    record,
    serving_signature,
)

MAX_MATRIX = 12  # classes; the matrix of more is wider than a page, and what matters in it is hard to find


def finish(run: Run) -> dict[str, Any]:
    """Write `report.html`, the pages that it links, and `run.json`, and return the document of the latter.

    A run that deployed locally also answers a held-out record; that this works, and that there was room for the
    report, is part of its success: `report` is None where it could not be written.
    """
    sample = first_sample(run)
    prediction = None
    deployed = StepOutputs(run.pipeline_dir, "deploy-version").json("deployment")
    if run.succeeded and sample and deployed and run.parameters.get("target", "local") == "local":
        try:
            prediction = ask(run, deployed["version"], sample)
        except ServegraphError as error:
            run.error = error
    pages = _copy_pages(run)
    document = record(run, prediction)
    if not _write(run, "report.html", page(run, document, sample, pages)):
        document = {**record(run, prediction), "report": None}
    if not _write(run, "run.json", json.dumps(document, indent=2, ensure_ascii=False)):
        document = {**record(run, prediction), "report": document["report"]}
    return document


def _copy_pages(run: Run) -> dict[str, str]:
    """Copy the pages of steps beside the report, as a browser takes an artifact without a suffix for text.

    Return their titles by file name.
    """
    return {
        name: title
        for name, (step, title) in PAGES.items()
        if (path := StepOutputs(run.pipeline_dir, step).file("report"))
        and _write(run, name, path.read_text(encoding="utf-8"))
    }


def _write(run: Run, name: str, text: str) -> bool:
    """Return whether a file of the run's directory could be written; why not is the run's error, if it has no other."""
    try:
        storage.open_dir(run.output_dir).write_bytes(name, text.encode())
    except StorageError as error:
        run.error = run.error or error
        return False
    return True


def ask(run: Run, version: str, sample: Sample) -> dict[str, Any]:
    """Serve the deployed versions for a moment and return the answer of one, with the traffic or not, to one record.

    Raises:
        Refusal: the server does not start, or answers with an error (code `PREDICTION_FAILED`).
    """
    from servegraph.serve.child import ServerProcess

    name = run.parameters.get("model_name", "census")
    with ServerProcess(Path(run.parameters["location"])) as server:
        server.wait_until_available(name)
        answer = server.post(f"/v1/models/{name}/versions/{version}:predict", {"instances": [sample.instance]})
    if answer.status != 200:
        raise Refusal(
            f"The deployed version answers {answer.status}: {answer.document}.",
            code="PREDICTION_FAILED",
            fix="Give records that the model takes, or mend the model.",
        )
    return {
        "instance": sample.instance,
        "label": sample.label,
        "prediction": answer.document["predictions"][0],
    }


def confused(matrix: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return which class was taken for which other one, and of how many records, the most frequent first."""
    names = [spec["displayName"] for spec in matrix.get("annotationSpecs", [])]
    found = [
        (true, predicted, int(count))
        for true, row in zip(names, matrix.get("rows", []), strict=True)
        for predicted, count in zip(names, row["row"], strict=True)
        if true != predicted and count
    ]
    return sorted(found, key=lambda one: -one[2])


def page(run: Run, document: dict[str, Any], sample: Sample | None, pages: Mapping[str, str]) -> str:
    """Return the report as one HTML page, which links `pages` beside it, file names with titles."""
    figures = StepOutputs(run.pipeline_dir, "train").metadata("classification_metrics")
    return render(
        "servegraph_pipelines",
        "run_report.html.jinja",
        run=document,
        name=run.parameters.get("model_name", "census" if run.pipeline in flows.FLOWS else run.pipeline),
        live=_still_live(run),
        signature=serving_signature(run),
        roc=[
            (p["falsePositiveRate"], p["recall"], p["confidenceThreshold"])
            for p in figures.get("confidenceMetrics", [])
        ],
        confusion=figures.get("confusionMatrix", {}),
        confused=confused(figures.get("confusionMatrix", {})),
        max_matrix=MAX_MATRIX,
        commands=commands(run, sample),
        pages=pages,
    )


def _still_live(run: Run) -> str | None:
    """Return the version that a step found live, None where the deploy was begun: what is live may be another then."""
    if any(step.name == "deploy-version" and step.started for step in run.steps):
        return None
    return StepOutputs(run.pipeline_dir, "live-version").parameter("version") or None

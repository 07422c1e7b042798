"""What a local run did, read from what its steps wrote: `run.json`, and the values its report shows."""

from __future__ import annotations

import contextlib
import json
import platform
import shlex
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from servegraph import __version__
from servegraph_pipelines.run import Run

_MODELS = {
    "trained": ("train", "model", "TrainedModel"),
    "exported": ("export-serving-graph", "model", "ServingModel"),
    "optimized": ("optimize", "optimized", "ServingModel"),
}


class StepOutputs:
    """What one step left: parameters, artifact metadata, artifact files. Empty where the step did not get that far."""

    def __init__(self, pipeline_dir: Path | None, step: str) -> None:
        """Read the step's `executor_output.json` if there is one, and room was there to write it."""
        self._folder = pipeline_dir / step if pipeline_dir else None
        self._document: dict[str, Any] = {}
        if self._folder is not None:
            with contextlib.suppress(FileNotFoundError, ValueError):
                self._document = json.loads((self._folder / "executor_output.json").read_text(encoding="utf-8"))

    def parameter(self, name: str) -> Any:
        """Return an output parameter, None where there is none."""
        return self._document.get("parameterValues", {}).get(name)

    def metadata(self, artifact: str) -> dict[str, Any]:
        """Return the metadata of an output artifact."""
        found = self._document.get("artifacts", {}).get(artifact, {}).get("artifacts", [])
        metadata: dict[str, Any] = found[0].get("metadata", {}) if found else {}
        return metadata

    def file(self, artifact: str) -> Path | None:
        """Return the path of an output artifact that exists."""
        path = self._folder / artifact if self._folder else None
        return path if path and path.exists() else None

    def json(self, artifact: str) -> dict[str, Any]:
        """Return an output artifact that is a JSON file."""
        path = self.file(artifact)
        document: dict[str, Any] = json.loads(path.read_text()) if path and self._document else {}
        return document


@dataclass(frozen=True)
class Sample:
    """A held-out record: what a request sends, and the label, which it does not."""

    instance: dict[str, Any]
    label: Any


def serving_signature(run: Run) -> dict[str, Any]:
    """Return the signature `serving_default` as the inspection found it, empty if the run did not get that far."""
    inspection = StepOutputs(run.pipeline_dir, "inspect-graph").json("inspection")
    for meta_graph in inspection.get("meta_graphs", []):
        signature: dict[str, Any] = meta_graph["signatures"].get("serving_default", {})
        if signature:
            return signature
    return {}


def first_sample(run: Run) -> Sample | None:
    """Return the first held-out record, as the data writes it."""
    path, inputs = (
        StepOutputs(run.pipeline_dir, "train").file("samples"),
        serving_signature(run).get("inputs"),
    )
    if path is None or not inputs:
        return None
    with path.open(encoding="utf-8") as lines:
        values = json.loads(lines.readline())
    instance = {name: values.pop(name) for name in list(values) if name in inputs}
    return Sample(instance, next(iter(values.values()), None))


def record(run: Run, prediction: dict[str, Any] | None) -> dict[str, Any]:
    """Return the document of `run.json`."""
    sizes = {
        name: StepOutputs(run.pipeline_dir, step).metadata(artifact).get(kind, {}).get("size_bytes")
        for name, (step, artifact, kind) in _MODELS.items()
    }
    trained = StepOutputs(run.pipeline_dir, "train").metadata("model").get("TrainedModel", {})
    checked = StepOutputs(run.pipeline_dir, "check-data")
    optimized = StepOutputs(run.pipeline_dir, "optimize").metadata("metrics")
    evaluation = StepOutputs(run.pipeline_dir, "evaluate").json("evaluation")
    return {
        "status": "succeeded" if run.succeeded else "interrupted" if run.interrupted else "failed",
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "parameters": run.parameters,
        "steps": [{"name": s.name, "status": s.status, "seconds": s.seconds} for s in run.steps],
        "skipped": checked.parameter("reason") if checked.parameter("decision") == "skip" else None,
        "model_bytes": {name: int(size) for name, size in sizes.items() if size is not None},
        "notes": trained.get("notes", []),  # on what was decided about the data
        "metrics": trained.get("metrics", {}),  # of the trained model, which is not the one that is deployed
        "optimized_metrics": _measured_after(optimized, evaluation),
        "optimized": optimized,
        "choice": StepOutputs(run.pipeline_dir, "choose-machine").json("decision"),
        "deployed": StepOutputs(run.pipeline_dir, "deploy-version").json("deployment"),
        "evaluation": evaluation,
        "prediction": prediction,
        "error": {"code": run.error.code, "message": run.error.message, "fix": run.error.fix} if run.error else None,
        "log": str(run.log),
        "pipeline_dir": str(run.pipeline_dir) if run.pipeline_dir else None,
        "report": str(run.output_dir / "report.html"),
        "versions": {"servegraph": __version__, "python": platform.python_version(), **_versions()},
    }


def _measured_after(optimized: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of the optimized model, by name; empty where no step asked it for labels."""
    found = {name.removesuffix("_after"): value for name, value in optimized.items() if name.endswith("_after")}
    if metric := evaluation.get("candidate", {}).get("metric"):
        found[metric["name"]] = metric["value"]
    return found


def commands(run: Run, sample: Sample | None) -> dict[str, str]:
    """Return the shell commands a reader of the report tries next, none where the pipeline deploys nothing here."""
    if "location" not in run.parameters:
        return {}
    root = shlex.quote(str(run.parameters["location"]))
    name = run.parameters.get("model_name", "census")
    body = shlex.quote(json.dumps({"instances": [sample.instance if sample else {}]}, ensure_ascii=False))
    return {
        "serve": f"servegraph serve {root}",
        "ask": f"curl -s http://127.0.0.1:8501/v1/models/{name}:predict -d {body}",
        "versions": f"servegraph versions --target local --root {root} --name {name}",
        "rollback": f"servegraph rollback --target local --root {root} --name {name}",
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in ("kfp", "tensorflow", "tensorflow-cpu", "keras"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

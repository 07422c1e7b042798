"""Runs a task of `child` in the environment with TensorFlow 2.15: a JSON request in, a JSON result out."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from servegraph.errors import TrainerError, as_told
from servegraph.estimator.environment import interpreter

_SCRIPT = Path(__file__).with_name("__main__.py")


def call(task: str, **request: Any) -> dict[str, Any]:
    """Return what `child.TASKS[task]` returns for the request; its progress goes to stderr.

    Raises:
        ServegraphError: what the task raises; `TrainerError` (code `ESTIMATOR_FAILED`) where it ends without a result.
    """
    python = interpreter(os.environ)
    # 3: errors alone. TensorFlow 2.15 warns of Estimators being deprecated at each step.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONPATH", None)  # it may lead to the other TensorFlow
    with tempfile.TemporaryDirectory(prefix="servegraph-estimator-") as directory:
        question, answer = Path(directory, "request.json"), Path(directory, "result.json")
        question.write_text(json.dumps({"task": task, "request": request}), encoding="utf-8")
        done = subprocess.run([str(python), str(_SCRIPT), str(question), str(answer)], env=environment, check=False)
        if not answer.is_file():
            raise TrainerError(
                f"The process with TensorFlow 2.15 ended with exit code {done.returncode} and no result.",
                code="ESTIMATOR_FAILED",
                fix="See what it wrote above; -9 is for lack of memory.",
            )
        result = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in result:
        raise as_told(**result["error"])
    found: dict[str, Any] = result["result"]
    return found

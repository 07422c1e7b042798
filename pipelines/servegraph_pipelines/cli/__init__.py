"""`servegraph VERB …`: one module `cmd_<verb>.py` per verb, imported only when its verb is used.

Exit codes: 0 fine; 1 the verb's own "no"; 2 bad usage or input that cannot be read; 130 interrupted; 141 nobody reads
stdout any longer. With `--json` stdout holds exactly one JSON document; logs and progress go to stderr. Nothing here
imports click: see `main`.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import Any

# One row a verb: its line in `servegraph --help`. The row stays true without importing the command.
VERBS = {
    "run": "Run the whole DAG on this machine, census data in, a deployed version out.",
    "compile": "Write the pipeline as YAML for Kubeflow Pipelines or Vertex AI.",
    "submit": "Send a run of a pipeline to Vertex AI or Kubeflow Pipelines, and follow it.",
    "train": "Train alone, on several machines of Vertex AI or a Kubeflow cluster.",
    "why": "Say why a step of a run was not taken from the cache.",
    "schedule": "Keep schedules on Vertex AI, Kubeflow Pipelines or here as one file declares them.",
    "export": "Write a serving SavedModel from a Keras model, a SavedModel, a tf.Module or a TF1 checkpoint.",
    "inspect": "Show what a SavedModel holds and what is wrong with it, without TensorFlow.",
    "optimize": "Shrink a SavedModel until it fits a budget, and prove that its answers stayed.",
    "measure": "Serve a model under a machine's limits: load time, memory, latency, rate, settings.",
    "choose": "Pick the machine for a model from its measured size, and say why.",
    "explain": "Say whether predictions can be explained, and make the metadata for it.",
    "package": "Package Python that goes around a model, and try it through the server.",
    "deploy": "Deploy a model as a new version; running it again changes nothing.",
    "versions": "List the deployed versions of a model.",
    "rollback": "Put the previous version back in front of the traffic.",
    "undeploy": "Remove a version, or all of a model.",
    "serve": "Serve deployed versions on TF Serving's REST routes.",
    "schema": "Infer the schema of a data set and write it out for editing.",
}

BROKEN_PIPE = 141  # 128 and the number of SIGPIPE, as shells report of any program


def __getattr__(name: str) -> Any:
    """Return `app`, the click group, imported when it is asked for."""
    if name == "app":
        from servegraph_pipelines.cli.group import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Entry point: run the command and turn every error into one clear message and an exit code."""
    argv = sys.argv[1:]
    # A verb's user expects `servegraph inspect X --debug` to work as well as `servegraph --debug inspect X`.
    debug = "--debug" in argv
    as_json = "--json" in argv
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # whoever called closed it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  pathlib is dear here
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not end the program
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run([arg for arg in argv if arg != "--debug"])
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
        _drop_stdout()
        code = BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            import traceback

            traceback.print_exc()
        from servegraph_pipelines.cli.outcome import report_error

        code = report_error(error, as_json=as_json)
        try:
            sys.stdout.flush()
        except OSError:  # it is what is full
            _drop_stdout()
    sys.exit(code)


def _drop_stdout() -> None:
    """Send what is left in stdout nowhere: the interpreter tries to write it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str]) -> int:
    """Run a command line. Where nothing is to parse, click is not imported: it takes longer than a look at a model."""
    if argv[:1] == ["inspect"]:
        gc.disable()  # a short process that makes many values and no cycles: looking for them is a tenth of its time
        flags = {"--json", "--verify"}
        models = [arg for arg in argv[1:] if arg not in flags]
        if len(models) == 1 and not models[0].startswith("-"):
            from servegraph_pipelines.cli.inspection import show

            return show(models[0], as_json="--json" in argv, verify="--verify" in argv)
    from servegraph_pipelines.cli.group import app

    result = app.main(argv, prog_name="servegraph", standalone_mode=False)
    return result if isinstance(result, int) else 0

"""`servegraph VERB …`: one module `cmd_<verb>.py` per verb, imported only when its verb is used.

Exit codes: 0 fine; 1 the verb's own "no"; 2 bad usage or input that cannot be read. With `--json` stdout holds
exactly one JSON document; logs and progress go to stderr.
"""

from __future__ import annotations

import importlib
import sys

import click

from servegraph import __version__
from servegraph_pipelines.cli.outcome import report_error

# One row a verb: its line in `servegraph --help`. The row stays true without importing the command.
VERBS = {
    "run": "Run the whole DAG on this machine, census data in, a deployed version out.",
    "compile": "Write the pipeline as YAML for Kubeflow Pipelines or Vertex AI.",
    "export": "Write a serving SavedModel from a Keras model or a training checkpoint directory.",
    "inspect": "Show what a SavedModel holds and what is wrong with it, without TensorFlow.",
    "optimize": "Shrink a SavedModel until it fits a budget, and prove that its answers stayed.",
    "choose": "Pick the machine for a model from its measured size, and say why.",
    "deploy": "Deploy a model as a new version; running it again changes nothing.",
    "versions": "List the deployed versions of a model.",
    "rollback": "Put the previous version back in front of the traffic.",
    "undeploy": "Remove a version, or all of a model.",
    "serve": "Serve deployed versions on TF Serving's REST routes.",
    "schema": "Infer the schema of a data set and write it out for editing.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when used: `--help` and `inspect` never pay for TensorFlow or kfp."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the table, which is the order of the pipeline."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `cmd_<verb>` and return its `command`."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"servegraph_pipelines.cli.cmd_{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs from the table, importing nothing."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="servegraph")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def app(debug: bool) -> None:
    """From a trained TensorFlow model to a right-sized serving version."""


def main() -> None:
    """Entry point: run the command and turn every error into one clear message and an exit code."""
    argv = sys.argv[1:]
    # A verb's user expects `servegraph inspect X --debug` to work as well as `servegraph --debug inspect X`.
    debug = "--debug" in argv
    as_json = "--json" in argv
    try:
        result = app.main([arg for arg in argv if arg != "--debug"], prog_name="servegraph", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except Exception as error:
        if debug:
            raise
        code = report_error(error, as_json=as_json)
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        code = 130
    sys.exit(code)

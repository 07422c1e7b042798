"""The command `servegraph` with its verbs, for click."""

from __future__ import annotations

import importlib
from typing import Any

import click

from servegraph import __version__
from servegraph_pipelines.cli import BROKEN_PIPE, VERBS


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

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb and return its exit code; click itself ends with 1, a verb's own "no", where nobody reads."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return BROKEN_PIPE

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs from the table, importing nothing."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="servegraph")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def app(debug: bool) -> None:
    """From a trained TensorFlow model to a right-sized serving version."""

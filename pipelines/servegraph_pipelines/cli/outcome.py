"""How every verb ends: one JSON document or text on stdout, one clear error on stderr, an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from servegraph.errors import ServegraphError


def print_json(document: Mapping[str, Any]) -> None:
    """Print `document` as the one JSON document of this command on stdout."""
    import json  # not at the top: what is imported there, every start of the command line pays for

    is_utf8 = (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")  # what JSON is in, unless it is all ASCII
    print(json.dumps(document, indent=2, ensure_ascii=not is_utf8, allow_nan=False))


def report_error(error: Exception, *, as_json: bool) -> int:
    """Show `error` on stderr (and with `--json` as the document on stdout) and return the exit code."""
    import click

    if isinstance(error, click.exceptions.Exit):
        return int(error.exit_code)
    if isinstance(error, click.ClickException):
        error.show()
        if as_json:
            print_json({"error": {"code": "BAD_USAGE", "message": error.format_message(), "fix": ""}})
        return 2
    if isinstance(error, click.Abort):
        click.echo("Aborted.", err=True)
        return 130
    if isinstance(error, ServegraphError):
        code, message, fix, exit_code = error.code, error.message, error.fix, error.exit_code
    else:
        # Not an error of ours: a defect, or the machine (out of memory, no space). Name it, never hide it.
        code, message = "UNEXPECTED", f"{type(error).__name__}: {error}"
        fix, exit_code = "Run again with --debug and report the traceback.", 1
    click.echo(f"{click.style('error', fg='red', bold=True)} {code}: {message}", err=True)
    if fix:
        click.echo(f"  fix: {fix}", err=True)
    if as_json:
        print_json({"error": {"code": code, "message": message, "fix": fix}})
    return exit_code


def import_tensorflow_quietly() -> None:
    """Import TensorFlow without its start-up notices on the terminal; a user's own log level wins.

    TensorFlow 2.21 writes the first of them before its logging is set up, where no setting reaches: what comes on
    stderr during the import is held back, and shown only if the import fails.
    """
    import logging
    import tempfile

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            import tensorflow
        except BaseException:
            held_back.seek(0)
            os.write(terminal, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
    tensorflow.get_logger().setLevel(logging.ERROR)

"""How every verb ends: one JSON document or text on stdout, one clear error on stderr, an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from servegraph.printable import printable, printable_lines


def print_json(document: Mapping[str, Any]) -> None:
    """Print `document` as the one JSON document of this command on stdout."""
    import json  # not at the top: what is imported there, every start of the command line pays for

    is_utf8 = (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")  # what JSON is in, unless it is all ASCII
    print(printable_lines(json.dumps(document, indent=2, ensure_ascii=not is_utf8, allow_nan=False)))


def echo(line: str, *, head: str = "", colour: str | None = None, err: bool = False) -> None:
    """Print one line on stdout or stderr, whatever is in the names that it holds; `head` is bold and before it."""
    if not head:
        print(printable(line), file=sys.stderr if err else sys.stdout, flush=True)
        return
    _echo_marked(head, colour, printable(line), err=err)


def _echo_marked(head: str, colour: str | None, line: str, *, err: bool) -> None:
    import click

    marks = False if os.environ.get("NO_COLOR") else None  # None: where it is a terminal. See https://no-color.org
    click.echo(f"{click.style(printable(head), fg=colour, bold=True)} {line}", err=err, color=marks)


def show_error(code: str, message: str, *below: str) -> None:
    """Show an error on stderr, with lines below it such as its fix."""
    import click

    _echo_marked("error", "red", f"{code}: {printable_lines(message)}", err=True)
    for line in below:
        click.echo(f"  {printable_lines(line)}", err=True)


def report_error(error: BaseException, *, as_json: bool) -> int:
    """Show `error` on stderr (and with `--json` as the document on stdout) and return the exit code."""
    import contextlib

    import click

    from servegraph_pipelines.step_errors import own_error

    if isinstance(error, click.exceptions.Exit):
        return int(error.exit_code)
    if isinstance(error, click.ClickException):
        error.show()
        if as_json:
            verb = getattr(error, "ctx", None)
            fix = f"See `{verb.command_path if verb else 'servegraph'} --help`."
            print_json({"error": {"code": "BAD_USAGE", "message": error.format_message(), "fix": fix}})
        return 2
    if isinstance(error, (KeyboardInterrupt, click.Abort)):  # click makes the one the other
        click.echo("Interrupted.", err=True)
        if as_json:
            print_json({"error": {"code": "INTERRUPTED", "message": "Interrupted.", "fix": ""}})
        return 130
    if own := own_error(error):
        code, message, fix, exit_code = own.code, own.message, own.fix, own.exit_code
    else:
        # Not an error of ours: a defect, or the machine (out of memory). Name it, never hide it.
        code, message = "UNEXPECTED", f"{type(error).__name__}: {error}"
        fix, exit_code = "Run again with --debug and report the traceback.", 1
    show_error(code, message, *([f"fix: {fix}"] if fix else []))
    if as_json:
        with contextlib.suppress(OSError):  # stdout may be what is full
            print_json({"error": {"code": code, "message": message, "fix": fix}})
    return exit_code

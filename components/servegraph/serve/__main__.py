"""`python -m servegraph.serve [ROOT]`: the server of the serving image, without the pipelines package."""

from __future__ import annotations

import argparse
import os
import sys

from servegraph.errors import ServegraphError
from servegraph.serve.options import (
    DEFAULT_MAX_BODY_BYTES,
    DEFAULT_TIMEOUT_S,
    DEFAULT_WAITING,
    options_of,
)
from servegraph.serve.server import serve


def main(arguments: list[str] | None = None) -> int:
    """Serve as the arguments say and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m servegraph.serve", description=__doc__)
    parser.add_argument(
        "root", nargs="?", metavar="ROOT", help="directory of models: ROOT/NAME/<integer>/, or what to fetch from gs://"
    )
    parser.add_argument("--host", help="127.0.0.1 unless told otherwise")
    parser.add_argument("--port", type=int, help="0: any free one")
    parser.add_argument("--name", help="serve only this model")
    parser.add_argument("--predictor", metavar="MODULE:CLASS", help="a custom prediction routine for ROOT")
    parser.add_argument(
        "--trust-code", dest="trusts_code", action="store_true", help="run the routines that models bring"
    )
    parser.add_argument("--max-body-bytes", type=int, default=DEFAULT_MAX_BODY_BYTES)
    parser.add_argument("--batch-rows", type=int, help="rows of a shared call; 1: none; 64 if nothing says otherwise")
    parser.add_argument(
        "--ignore-settings", dest="uses_settings", action="store_false", help="those stored with a model"
    )
    parser.add_argument("--waiting", type=int, default=DEFAULT_WAITING, help="requests in line before 429")
    parser.add_argument("--timeout-s", type=float, default=DEFAULT_TIMEOUT_S, help="before a request gets 504")
    parser.add_argument("--access-log", action="store_true", help="log every request as a line of JSON")
    parser.add_argument("--no-probe", dest="is_probed", action="store_false", help="do not ask golden requests")
    parser.add_argument("--listen-fd", type=int, help="use this inherited listening socket")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input ends")
    try:
        return serve(options_of(os.environ, **vars(parser.parse_args(arguments))))
    except ServegraphError as exc:
        print(f"error {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:  # before the server's own handlers were there
        return 130


if __name__ == "__main__":
    sys.exit(main())

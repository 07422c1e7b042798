"""`python -m servegraph.serve ROOT`: the server of the serving image, without the pipelines package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from servegraph.errors import ServegraphError
from servegraph.serve.server import DEFAULT_HOST, DEFAULT_MAX_BODY_BYTES, DEFAULT_PORT, ServeOptions, serve


def main(arguments: list[str] | None = None) -> int:
    """Serve as the arguments say and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m servegraph.serve", description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT", help="directory of models: ROOT/NAME/<integer>/")
    parser.add_argument("--host", default=DEFAULT_HOST)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0: any free one")
    parser.add_argument("--name", help="serve only this model")
    parser.add_argument("--max-body-bytes", type=int, default=DEFAULT_MAX_BODY_BYTES)
    parser.add_argument("--access-log", action="store_true", help="log every request")
    parser.add_argument("--listen-fd", type=int, help="use this inherited listening socket")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input ends")
    options = ServeOptions(**vars(parser.parse_args(arguments)))
    try:
        return serve(options)
    except ServegraphError as exc:
        print(f"error {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:  # before the server's own handlers were there
        return 130


if __name__ == "__main__":
    sys.exit(main())

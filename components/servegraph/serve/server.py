"""The process: takes the port, then follows the versions below the root until it is told to stop."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servegraph.errors import InputError
from servegraph.serve.state import check_model_name
from servegraph.serve.versions import check_root

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8501  # TF Serving's REST port
DEFAULT_MAX_BODY_BYTES = 8 << 20  # some 10,000 wide rows, or an image as base64; a few at once do no harm
FOLLOW_INTERVAL_S = 0.5  # a look is a few stat calls
DRAIN_TIMEOUT_S = 30  # how long requests in flight may take after SIGTERM
_NEEDED = ("uvicorn", "httptools", "orjson", "tensorflow")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServeOptions:
    """How to serve: `name` limits it to one model, `listen_fd` is a listening socket that was inherited."""

    root: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    name: str | None = None
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    access_log: bool = False
    listen_fd: int | None = None
    exit_with_stdin: bool = False  # stop when standard input ends: when the program that started this one is gone


def serve(options: ServeOptions) -> int:
    """Serve until SIGTERM or SIGINT, then finish the requests in flight and return 0.

    Raises:
        InputError: the root is not one, the port is taken (`SERVE_PORT_IN_USE`), or a package is missing.
        StorageError: the root cannot be read.
    """
    check_root(options.root)
    if options.name is not None:
        check_model_name(options.name)
    _check_packages()
    # Before TensorFlow, whose import takes seconds: a taken port is known at once.
    listener = listen(options.host, options.port) if options.listen_fd is None else _inherited(options.listen_fd)
    _set_up_logging()
    _run(options, listener)
    return 0


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket on `host` and `port` (0: one that is free).

    Raises:
        InputError: it is taken (code `SERVE_PORT_IN_USE`), or cannot be had (`SERVE_ADDRESS`).
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise InputError(f"{host!r} is not an address to listen on: {exc}.", code="SERVE_ADDRESS") from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as exc:
        listener.close()
        if isinstance(exc, PermissionError):
            fix = "Take a port from 1024 up."
        else:
            fix = "Stop what listens there, or choose another with --port (0: any free one)."
        raise InputError(
            f"Cannot listen on {host} port {port}: {exc.strerror or exc}.",
            code="SERVE_PORT_IN_USE" if exc.errno == errno.EADDRINUSE else "SERVE_ADDRESS",
            fix=fix,
        ) from exc
    return listener


def _run(options: ServeOptions, listener: socket.socket) -> None:
    import uvicorn

    from servegraph.serve.http import App
    from servegraph.serve.model import load_model
    from servegraph.serve.repository import Repository

    repository = Repository(options.root, load_model, only=options.name)
    config = uvicorn.Config(
        App(repository, options.max_body_bytes),
        interface="asgi3",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="info" if options.access_log else "warning",
        access_log=options.access_log,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
    )
    server = uvicorn.Server(config)
    _stop_on_signals(server)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _log.info("listening on http://%s:%d/v1/models, serving %s", shown, port, options.root)
    if options.exit_with_stdin:
        _stop_when_stdin_ends()
    repository.follow(FOLLOW_INTERVAL_S)
    server.run(sockets=[listener])
    repository.stop()
    _log.info("stopped")


def _inherited(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)


def _check_packages() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"The server needs packages that are not installed: {', '.join(missing)}.",
            code="PACKAGE_MISSING",
            fix="pip install 'servegraph[serve]'",
        )


def _set_up_logging() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("servegraph", "uvicorn"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _stop_on_signals(server: Any) -> None:
    """Stop on signals before uvicorn's own handlers are there; survive the one it sends itself at its end."""

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _stop_when_stdin_ends() -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stdin", daemon=True).start()

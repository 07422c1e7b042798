"""The process: takes the port, then follows the versions below the root until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, TextIO

from servegraph.errors import InputError, ServegraphError
from servegraph.extras import require
from servegraph.serve.options import DEFAULT_NAME, ServeOptions
from servegraph.serve.state import check_model_name
from servegraph.serve.versions import WantedModel, WantedVersion, check_root
from servegraph.storage.local_paths import require_loadable_path

FOLLOW_INTERVAL_S = 0.5  # a look is a few stat calls
LINGER_S = 0.5  # after SIGTERM: for those who have not heard yet that nothing more should be sent here
DRAIN_TIMEOUT_S = 30.0  # how long requests in flight may take after that
_BACKLOG = 2048
_OTHER_FILES = 256  # beside connections: libraries, logs, directories of models, sockets to routines
_SWITCH_INTERVAL_S = 0.0005
# All that a request makes is freed with it. By Python's own, one of two million lists is looked through 3,000 times.
_GC_THRESHOLD = (50_000, 20, 100)
_NEEDED = ("httptools", "orjson", "prometheus_client")

_log = logging.getLogger(__name__)


def serve(options: ServeOptions) -> int:
    """Serve until SIGTERM or SIGINT, then finish the requests in flight and return 0.

    Raises:
        InputError: the root is not one, TensorFlow can load nothing from there (`UNLOADABLE_PATH`), the port is
            taken (`SERVE_PORT_IN_USE`), or a package is missing.
        StorageError: the root cannot be read.
    """
    if options.predictor is None and options.root is not None:
        require_loadable_path(options.root, "ROOT")
        check_root(options.root)
    if options.name is not None:
        check_model_name(options.name)
    require_packages(with_tensorflow=options.predictor is None)
    # Before TensorFlow, whose import takes seconds: a taken port is known at once.
    listener = listen(options.host, options.port) if options.listen_fd is None else _inherited(options.listen_fd)
    log_stream = _log_stream()
    _set_up_logging(log_stream)
    # What is fetched lies in a directory of models of its own, gone with the server.
    fetched = None if options.root is not None or options.predictor else Path(tempfile.mkdtemp(prefix="servegraph-"))
    try:
        _loop_until_told(options, listener, fetched or options.root, log_stream)
    except KeyboardInterrupt:  # a signal before the loop had its own handlers
        listener.close()
    finally:
        if fetched is not None:
            shutil.rmtree(fetched, ignore_errors=True)
    _log.info("stopped")
    return 0


def _loop_until_told(
    options: ServeOptions, listener: socket.socket, root: Path | None, log_stream: TextIO | None
) -> None:
    loop = _new_loop()
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(_run(options, listener, root, log_stream))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def require_packages(*, with_tensorflow: bool = True) -> None:
    """Raise `InputError` (code `PACKAGE_MISSING`) where the server lacks packages; a predictor needs no TensorFlow."""
    require([*_NEEDED, "tensorflow"] if with_tensorflow else _NEEDED, "The server")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket on `host` and `port` (0: one that is free).

    Raises:
        InputError: it is taken (code `SERVE_PORT_IN_USE`), or cannot be had (`SERVE_ADDRESS`).
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise InputError(
            f"{host!r} is not an address to listen on: {exc}.",
            code="SERVE_ADDRESS",
            fix="Give --host an address of this machine: 127.0.0.1, or 0.0.0.0 for all of them.",
        ) from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
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


async def _run(options: ServeOptions, listener: socket.socket, root: Path | None, log_stream: TextIO | None) -> None:
    from servegraph.serve.access_log import AccessLog
    from servegraph.serve.connection import Connection
    from servegraph.serve.edge import ConnectionLimits, Edge
    from servegraph.serve.http import App, AppOptions, Request, Response
    from servegraph.serve.metrics import Metrics

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.exit_with_stdin:
        _stop_when_stdin_ends()
    # While a model loads, most of it in Python, the loop waits for its turn as often as there are requests.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(*_GC_THRESHOLD)
    repository = _repository(options, root)
    metrics = Metrics(repository)
    access_log = AccessLog(log_stream) if options.access_log else None

    def observe(request: Request, response: Response, seconds: float, client: str) -> None:
        metrics.observe(request, response, seconds, client)
        if access_log is not None:
            access_log.observe(request, response, seconds, client)

    app = App(repository, AppOptions(options.max_body_bytes, options.aliases, metrics.text))
    edge = Edge(app, ConnectionLimits(options.max_body_bytes, connections=_most_connections()), observe)
    edge.start()
    server = await loop.create_server(lambda: Connection(edge), sock=listener, backlog=_BACKLOG)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    what = options.predictor or options.root or options.artifacts_uri
    _log.info("listening on http://%s:%d/v1/models, serving %s", shown, port, what)
    if root is None or await _is_there(options, root, stop):
        repository.follow(FOLLOW_INTERVAL_S)
    await stop.wait()
    app.health.is_draining = True
    edge.is_draining = True
    await asyncio.sleep(LINGER_S)
    server.close()
    await edge.drain(DRAIN_TIMEOUT_S)
    repository.stop()
    if access_log is not None:
        access_log.close()


def _most_connections() -> int:
    """Let this process have as many files open as it may and needs; return how many of them may be connections."""
    from servegraph.serve.edge import MOST_CONNECTIONS

    try:
        import resource
    except ImportError:  # on Windows
        return MOST_CONNECTIONS
    files, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + _OTHER_FILES
    if files != resource.RLIM_INFINITY and files < wanted:
        files = wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, allowed))
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(files - _OTHER_FILES, files // 2))


async def _is_there(options: ServeOptions, root: Path, stop: asyncio.Event) -> bool:
    """Fetch what is not below `root` yet, while health is asked and answered; False where `stop` comes before it.

    Raises:
        StorageError: it cannot be fetched.
    """
    if options.root is None:
        from servegraph.serve.artifacts import fetch

        if "://" in options.artifacts_uri:
            _log.info("fetching %s", options.artifacts_uri)
        fetching = asyncio.ensure_future(fetch(options.artifacts_uri, root, options.name or DEFAULT_NAME))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((fetching, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not fetching.done():
            fetching.cancel()
            await asyncio.wait((fetching,))
            return False
        fetching.result()
    if options.uses_settings and options.predictor is None:
        _set_environment(root, options.name)
    return True


def _repository(options: ServeOptions, root: Path | None) -> Any:
    from servegraph.serve.lane import LaneLimits
    from servegraph.serve.loading import load_version
    from servegraph.serve.model import ModelOptions
    from servegraph.serve.repository import Repository

    limits = LaneLimits(options.waiting, options.timeout_s)
    name = options.name or DEFAULT_NAME
    if options.predictor is not None:
        from servegraph.serve.predictor import find_predictor, host

        found = find_predictor(options.predictor)
        artifacts_uri = options.artifacts_uri if options.root is None else str(options.root)
        wanted = WantedModel({1: WantedVersion(Path(artifacts_uri), options.predictor)}, {1: 100})
        return Repository(Path(), lambda _: host(found, artifacts_uri, limits), fixed={name: wanted})
    assert root is not None, "options_of has seen to it that there is something to serve"
    loading = ModelOptions(options.batch_rows, options.is_probed, options.uses_settings, limits)
    trusts_code = options.trusts_code
    return Repository(
        root, lambda directory: load_version(directory, loading, trusts_code=trusts_code), only=options.name
    )


def _set_environment(root: Path, only: str | None) -> None:
    """Set for TensorFlow what is stored with the models, where they agree; what is set already stays."""
    from servegraph.serve.settings import read_settings
    from servegraph.serve.versions import model_names, wanted_model

    found: dict[str, dict[str, str]] = {}
    for name in model_names(root):
        if only not in (None, name):
            continue
        try:
            wanted = wanted_model(root / name)
            live = max(wanted.traffic, key=lambda number: wanted.traffic[number], default=None)
            settings = None if live is None else read_settings(wanted.versions[live].directory)
        except ServegraphError as exc:  # said again when the model is loaded
            _log.warning("%s", exc)
            continue
        found[name] = {} if settings is None else settings.environment()
    environments = list(found.values())
    if any(environment != environments[0] for environment in environments):
        _log.warning("the models were measured best with different settings, so none are set: %s", found)
    elif environments and environments[0]:
        _log.info("as measured for the model: %s", environments[0])
        for variable, value in environments[0].items():
            os.environ.setdefault(variable, value)


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's loop, or the standard one where it is not installed: it has no build for Windows."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _inherited(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)


def _log_stream() -> TextIO | None:
    """Return a standard error of the log's own: TensorFlow's notices are held back while it is imported, no line is."""
    if sys.stderr is None:
        return None
    return os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors)


def _set_up_logging(stream: TextIO | None) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("servegraph")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _stop_when_stdin_ends() -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stdin", daemon=True).start()

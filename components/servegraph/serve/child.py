"""A server started by another program: for the probe of a deploy, and for demos and tests.

Imports neither TensorFlow nor numpy: those are the child's.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from servegraph import own_module
from servegraph.errors import Refusal
from servegraph.patience import waiting_for
from servegraph.serve.server import listen

START_TIMEOUT_S = 300.0  # loading gigabytes from a slow disk
STOP_TIMEOUT_S = 40.0
_POLL_S = 0.05
# What TensorFlow writes before its own settings of what to log count: no news, and no reason for an end.
_NOTICE = re.compile(r"WARNING: All log messages before absl::|I\d{4} \d\d:")


class Answer(NamedTuple):
    """An HTTP answer: its status and its JSON document."""

    status: int
    document: Any


class ServerProcess:
    """`python -m servegraph.serve ROOT` on a loopback port, ended with the `with` block or with this process.

    with ServerProcess(root) as server:
        server.wait_until_available("census")
        server.post("/v1/models/census:predict", {"instances": [...]})
    """

    def __init__(
        self,
        root: Path,
        port: int = 0,
        options: tuple[str, ...] = (),
        launch: tuple[str, ...] = ("servegraph.serve",),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Name what to serve; `port` 0 takes a free one, `options` are further arguments. Nothing is started yet.

        `launch` is the module that becomes the server, with arguments of its own; `environment` is added to this one.
        """
        self._root = root
        self._options = options
        self._launch = launch
        self._environment = environment or {}
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._output: Any = None
        self.url = ""

    def __enter__(self) -> ServerProcess:
        """Start the server; it answers from now on, though models may still be loading."""
        # The socket is made here and inherited: the port is known at once, and early connections wait.
        listener = listen("127.0.0.1", self._port)
        self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._output = tempfile.TemporaryFile()
        with listener:
            descriptor = listener.fileno()
            command = own_module.command(*self._launch, str(self._root))
            command += ["--host", "127.0.0.1", "--listen-fd", str(descriptor), "--exit-with-stdin", *self._options]
            self._process = subprocess.Popen(
                command,
                # Held open by this process alone: when it ends, however it ends, so does the child.
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                pass_fds=(descriptor,),
                start_new_session=True,  # Ctrl-C reaches the parent only, which then stops the child in order
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server and wait for its end."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._output.close()

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None, "the server is started by `with`"
        return self._process.pid

    def wait_until_available(self, name: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until every version of the model `name` that is there has loaded.

        Raises:
            Refusal: a version did not load, the server ended, or `timeout_s` passed.
        """
        deadline_s = time.monotonic() + timeout_s
        versions: list[Mapping[str, Any]] = []
        with waiting_for(f"the server that loads and tries {name}"):
            while time.monotonic() < deadline_s:
                versions = self._status(name)
                failed = [version for version in versions if version["status"]["error_message"]]
                if failed:
                    raise Refusal(
                        failed[0]["status"]["error_message"],
                        code="MODEL_NOT_LOADED",
                        fix="Run `servegraph inspect --verify` on it: it names damage, missing files and unknown ops.",
                    )
                if versions and all(version["state"] == "AVAILABLE" for version in versions):
                    return
                time.sleep(_POLL_S)
        raise Refusal(
            f"{name} was not available after {timeout_s:g} s (state: {versions or 'unknown'}). "
            f"The server's last lines: {self.last_lines()}",
            code="SERVER_TIMEOUT",
            fix="Stop what else takes this machine's processors or memory, then run again.",
        )

    def get(self, path: str, timeout_s: float = 60.0) -> Answer:
        """Return the answer to a GET. Raises `Refusal` where there is none."""
        return self._request("GET", path, None, timeout_s)

    def post(self, path: str, document: Any, timeout_s: float = 60.0) -> Answer:
        """Return the answer to a POST of `document` as JSON. Raises `Refusal` where there is none."""
        return self._request("POST", path, json.dumps(document).encode(), timeout_s)

    def get_bytes(self, path: str, timeout_s: float = 60.0) -> bytes:
        """Return the body of the answer to a GET, whatever it is. Raises `Refusal` where there is none."""
        return self._exchange("GET", path, None, timeout_s)[1]

    def post_bytes(self, path: str, body: bytes, timeout_s: float = 60.0) -> Answer:
        """Return the answer to a POST of `body` as it is. Raises `Refusal` where there is none."""
        return self._request("POST", path, body, timeout_s)

    def last_lines(self, count: int = 15) -> str:
        """Return the last lines that the server wrote, without what TensorFlow says of itself at each start."""
        # Read beside the child, which writes at the end of the same open file.
        size_bytes = os.fstat(self._output.fileno()).st_size
        start = max(0, size_bytes - 16_384)
        tail = os.pread(self._output.fileno(), size_bytes - start, start).decode("utf-8", "replace")
        lines = [line for line in tail.splitlines() if not _NOTICE.match(line)]
        return "\n".join(lines[-count:]) or "(none)"

    def _status(self, name: str) -> list[Mapping[str, Any]]:
        status, document = self.get(f"/v1/models/{name}")
        return list(document["model_version_status"]) if status == 200 else []

    def _request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Answer:
        status, content = self._exchange(method, path, body, timeout_s)
        try:
            return Answer(status, json.loads(content))
        except ValueError as exc:
            raise self._failure(f"{method} {path}", exc) from exc

    def _exchange(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        # http.client and not urllib: a proxy from the environment has no business with loopback.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout_s)
        try:
            connection.request(method, path, body, {"content-type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise self._failure(f"{method} {path}", exc) from exc
        finally:
            connection.close()

    def _failure(self, what: str, error: Exception) -> Refusal:
        assert self._process is not None, "the server is started by `with`"
        try:
            code = self._process.wait(1.0)  # a connection that breaks is often the first sign of its end
        except subprocess.TimeoutExpired:
            return Refusal(
                f"{what}: {error}. The server's last lines: {self.last_lines()}",
                code="SERVER_FAILED",
                fix="Mend what its last lines name, then run again.",
            )
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return Refusal(
            f"The server ended {how}. Its last lines: {self.last_lines()}",
            code="SERVER_ENDED",
            fix="Mend what its last lines name; signal 9 is for lack of memory.",
        )

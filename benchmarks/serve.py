"""Requests per second and latency of the prediction server, beside the Vertex SDK's server and FastAPI's.

    python benchmarks/serve.py [--seconds 1] [--rounds 20] [--only NAME,…] [--loads small] [--json FILE]

In one run on one machine: every server has the same model, is bound to the first core that this process may use, and is
asked by wrk on the last, in turns, round after round; the figures are medians of the rounds, a ratio is the median of
those within a round: what else a machine does comes and goes more slowly. The peers' packages go into a virtual
environment of their own beside this one, made at the first run. Exit 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PEER_PACKAGES = ("fastapi", "uvicorn", "docker")  # the SDK's server imports docker
PEERS = ("servegraph", "cpr", "fastapi", "asgi")
ROUTE = "/v1/models/bench:predict"
# Load, connections, peer, how many times its requests per second are asked for.
GOALS = (
    ("small", 16, "cpr", 4.0),
    ("small", 16, "fastapi", 6.0),
    ("small", 1, "cpr", 1.9),
    ("small", 1, "fastapi", 2.5),
    ("large", 1, "cpr", 3.0),
    ("large", 1, "fastapi", 3.0),
)
LOADS = (("small", 1), ("small", 16), ("large", 1))


class Figures(NamedTuple):
    """What wrk saw: requests per second, and milliseconds at the median and the 99th percentile.

    `cpu_us` is the CPU time of the server for a request, which other processes on the machine disturb less.
    """

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


class Server(NamedTuple):
    """A server that runs."""

    port: int
    pid: int

    def cpu_s(self) -> float:
        """Return the CPU time it has taken so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def build_models(root: Path) -> dict[str, tuple[Path, bytes]]:
    """Make a small dense net and one whose input is an image of 150,528 floats; return each with a request body."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(1)

    class Dense(tf.Module):
        def __init__(self, widths: list[int]) -> None:
            self.weights = [
                tf.Variable(random.normal(size=size).astype("f4") / size[0] ** 0.5) for size in pairwise(widths)
            ]

        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            for index, weights in enumerate(self.weights):
                x = tf.matmul(x, weights)
                x = tf.nn.relu(x) if index + 1 < len(self.weights) else tf.nn.softmax(x)
            return {"y": x}

    made = {}
    for name, widths in (("small", [8, 64, 64, 3]), ("large", [224 * 224 * 3, 3])):
        net = Dense(widths)
        directory = root / name / "bench" / "1"
        serve = tf.function(net.serve, input_signature=[tf.TensorSpec([None, widths[0]], tf.float32, "x")])
        tf.saved_model.save(net, str(directory), signatures=serve.get_concrete_function())
        values = random.uniform(size=(1, widths[0])).astype("f4")
        made[name] = (directory, json.dumps({"instances": values.astype(float).round(6).tolist()}).encode())
    return made


def peer_python() -> str:
    """Return the interpreter of an environment that sees this one's packages and has the peers' besides."""
    home = Path(sys.prefix).parent / ".venv-serve-peers"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        here = next(path for path in sys.path if path.endswith("site-packages"))
        there = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        Path(there, "servegraph.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER_PACKAGES], check=True)
        (home / "ready").touch()
    return str(python)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(peer: str, directory: Path, log: Path) -> Iterator[Server]:
    """Run a server on the first core and yield it once it is healthy."""
    port = free_port()
    if peer == "servegraph":
        root = str(directory.parent.parent)
        command = [sys.executable, "-m", "servegraph.serve", root, "--port", str(port)]
    else:
        command = [peer_python(), str(HERE / "serve_peers.py"), peer, str(directory), str(port)]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        wait_until_healthy(process, port, "/readyz" if peer == "servegraph" else "/health", log)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(60)


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    deadline_s = time.monotonic() + 400
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            break
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"the server did not start:\n{log.read_text()[-3000:]}")


def ask(port: int, body: bytes) -> list[list[float]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", ROUTE, body, {"content-type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    assert response.status == 200, answer
    return answer["predictions"]


def load(server: Server, body: bytes, connections: int, seconds: float) -> Figures:
    """Ask for `seconds` from the last core."""
    began_s = server.cpu_s()
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "body").write_bytes(body)
        script = Path(scratch, "post.lua")
        script.write_text(
            f'local file = io.open("{scratch}/body", "rb")\n'
            'wrk.method = "POST"\nwrk.body = file:read("*a")\n'
            'wrk.headers["Content-Type"] = "application/json"\n'
        )
        command = [
            "taskset",
            "-c",
            str(max(os.sched_getaffinity(0))),
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}s",
            "--latency",
            "--timeout=30s",
        ]
        out = subprocess.run(
            [*command, "-s", str(script), f"http://127.0.0.1:{server.port}{ROUTE}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert "Non-2xx" not in out and "Socket errors" not in out, out
    requests = int(re.search(r"(\d+) requests in", out)[1])
    return Figures(
        float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),
        milliseconds(out, "50%"),
        milliseconds(out, "99%"),
        (server.cpu_s() - began_s) / requests * 1e6,
    )


def milliseconds(out: str, percentile: str) -> float:
    value, unit = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s|m)\b", out).groups()
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]


def measure(
    peers: list[str], loads: list[str], seconds: float, rounds: int, scratch: Path
) -> dict[tuple[str, int, str], list[Figures]]:
    """Return what was seen in each round."""
    found: dict[tuple[str, int, str], list[Figures]] = {}
    models = build_models(scratch)
    for name in loads:
        directory, body = models[name]
        with ExitStack() as servers:
            running_now: dict[str, Server] = {}
            for peer in peers:  # all at once: the others wait while one is asked
                running_now[peer] = servers.enter_context(running(peer, directory, scratch / f"{peer}.log"))
                print(f"{name}: {peer} runs", file=sys.stderr)
            answers = {peer: ask(server.port, body)[0] for peer, server in running_now.items()}
            assert len({tuple(round(v, 4) for v in row) for row in answers.values()}) == 1, f"{name}: {answers}"
            for server in running_now.values():
                load(server, body, 4, 1)  # warm
            for _ in range(rounds):
                for kind, connections in LOADS:
                    for peer in peers if kind == name else ():
                        figures = load(running_now[peer], body, connections, seconds)
                        found.setdefault((kind, connections, peer), []).append(figures)
                        print(f"{kind} x{connections} {peer}: {figures}", file=sys.stderr)
    return found


def median(runs: list[Figures]) -> Figures:
    return Figures(*map(statistics.median, zip(*runs, strict=True)))


def ratios(ours: list[Figures], theirs: list[Figures]) -> tuple[list[float], float]:
    """Return how many times the requests per second were ours, round by round, and the CPU time of theirs to ours."""
    pairs = list(zip(ours, theirs, strict=True))
    return [our.rps / their.rps for our, their in pairs], statistics.median(t.cpu_us / o.cpu_us for o, t in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default=",".join(PEERS), help="some of: " + ", ".join(PEERS))
    parser.add_argument("--loads", default="small,large", help="one of them or both")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed (apt-get install wrk)")
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(given.only.split(","), given.loads.split(","), given.seconds, given.rounds, Path(scratch))
    print(f"{'load':8}{'conns':>6}  {'server':12}{'req/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'CPU us':>10}")
    for (kind, connections, peer), runs in sorted(found.items()):
        figures = median(runs)
        times = f"{figures.p50_ms:10.2f}{figures.p99_ms:10.2f}{figures.cpu_us:10.0f}"
        print(f"{kind:8}{connections:6}  {peer:12}{figures.rps:10.1f}{times}")
    missed = 0
    for kind, connections, peer, goal in GOALS:
        if (kind, connections, peer) in found and (kind, connections, "servegraph") in found:
            found_ratios, cpu = ratios(found[kind, connections, "servegraph"], found[kind, connections, peer])
            ratio = statistics.median(found_ratios)
            low, _, high = statistics.quantiles(found_ratios, n=4) if len(found_ratios) > 1 else [ratio] * 3
            missed += ratio < goal
            half = f"half of the rounds {low:.2f} to {high:.2f}"
            print(f"{kind}, {connections} connections: {ratio:.2f} x {peer} (goal {goal:g} x), {half}; CPU {cpu:.2f} x")
    if given.json:
        document = [
            {"load": k, "connections": c, "server": p, **median(runs)._asdict()} for (k, c, p), runs in found.items()
        ]
        given.json.write_text(json.dumps(document, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

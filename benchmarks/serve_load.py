"""A server under 80 % of its capacity while versions are deployed and rolled back and hostile requests come in.

    python benchmarks/serve_load.py [--minutes 10] [--share 0.8] [--json FILE]

The server has a core of its own, the first that this process may use; whatever asks is on the others. Measures the
capacity of a small model, then asks at that share of it, at fixed times whether answers come or not, on 16 connections.
Meanwhile a version is deployed or rolled back every few seconds through the local target, and one client after the
other sends what no client should. Every answer must be that of a version that may answer at that moment: while a change
is on its way any of the three models, else the live one alone. Exit 1 unless there was no wrong answer and no dropped
good request, and the memory at the end is no more than 10 % and 50 MB above that after the first tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from servegraph.deploy_version.deploy import deploy
from servegraph.deploy_version.plan import DeployRequest
from servegraph.deploy_version.targets.local import LocalTarget
from servegraph.measure.load import drive
from servegraph.serve.child import ServerProcess

NAME = "load"
TARGET = f"/v1/models/{NAME}:predict"
CONNECTIONS = 16
CHANGE_EVERY_S = 5.0
LATE_S = 0.1
VERSIONS = 3  # distinct models, which answer x times 1, 2 and 3


@dataclass
class Tally:
    """What has been seen. `allowed` are the factors that an answer may have at the moment.

    A time is from asking to the answer; `since_due_ms` from when a request was due, so that what waited for the answer
    before it counts too.
    """

    allowed: frozenset[int] = frozenset()
    good: int = 0
    wrong: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    late: int = 0
    times_ms: list[float] = field(default_factory=list)
    since_due_ms: list[float] = field(default_factory=list)
    hostile: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    memory_bytes: list[tuple[float, int]] = field(default_factory=list)


def build(directory: Path) -> None:
    """Make the models: x times a variable, through a small net that leaves it as it is."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    class Times(tf.Module):
        def __init__(self, factor: float) -> None:
            self.factor = tf.Variable(factor)
            self.weights = [tf.Variable(tf.eye(64)) for _ in range(4)]

        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, "x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            wide = tf.tile(x, [1, 8])
            for weights in self.weights:
                wide = tf.matmul(wide, weights)
            return {"y": wide[:, :8] * self.factor}

    for factor in range(1, VERSIONS + 1):
        times = Times(float(factor))
        tf.saved_model.save(times, str(directory / str(factor)), signatures=times.serve)


def request_of(values: list[float]) -> bytes:
    body = json.dumps({"instances": [values]}).encode()
    return b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (TARGET.encode(), len(body), body)


class Asker(asyncio.Protocol):
    """One connection: a request every `1 / rate` seconds, late ones at once; what is due is always asked.

    Its requests are made beforehand, and an answer that has been seen and read before is not parsed again: it must not
    cost the client more to ask than it costs the server to answer.
    """

    def __init__(self, rate: float, until_s: float, tally: Tally, number: int) -> None:
        choice = random.Random(number)
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rows = [[float(choice.randrange(-1000, 1000)) for _ in range(8)] for _ in range(500)]
        self._requests = [request_of(values) for values in self._rows]
        self._factors: list[dict[bytes, int]] = [{} for _ in self._rows]  # which model gave this answer
        self._pause_s = 1 / rate
        self._until_s = until_s
        self._tally = tally
        self._asked = 0
        self._asked_s = 0.0
        self._due_s = choice.random() / rate
        self._before: frozenset[int] = frozenset()
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._due_s += time.perf_counter()
        self._wait()

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        at = received.find(b"content-length: ") + 16
        if len(received) < end + 4 + int(received[at : received.index(b"\r", at)]):
            return
        tally = self._tally
        now_s = time.perf_counter()
        tally.times_ms.append((now_s - self._asked_s) * 1000)
        tally.since_due_ms.append((now_s - self._due_s) * 1000)
        body = received[end + 4 :]
        if not received.startswith(b"HTTP/1.1 200"):
            tally.dropped.append(f"{received[:300]!r}")
        elif (factor := self._factor(body)) not in self._before and factor not in tally.allowed:
            tally.wrong.append(f"{body[:300]!r}: model {factor} while {self._before | tally.allowed}")
        else:
            tally.good += 1
        self._received = b""
        self._due_s += self._pause_s
        self._asked += 1
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.finished.done():
            self._tally.dropped.append(f"the connection was closed: {error}")
            self.finished.set_result(None)

    def _factor(self, body: bytes) -> int:
        """Return by what the model multiplies that gave this answer to the last request; 0 if none of them did."""
        number = self._asked % len(self._rows)
        if (known := self._factors[number].get(body)) is None:
            values, answer = self._rows[number], json.loads(body)
            known = 0
            for factor in range(1, VERSIONS + 1):
                if answer == {"predictions": [[value * factor for value in values]]}:
                    known = factor
            self._factors[number][body] = known
        return known

    def _wait(self) -> None:
        assert self._transport is not None
        if self._due_s >= self._until_s:
            self.finished.set_result(None)
            self._transport.close()
            return
        wait_s = self._due_s - time.perf_counter()
        if wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self._ask)
        else:
            self._tally.late += wait_s < -LATE_S
            self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._before = self._tally.allowed
        self._asked_s = time.perf_counter()
        self._transport.write(self._requests[self._asked % len(self._rows)])


HOSTILE: dict[str, tuple[bytes, float]] = {
    "not HTTP": (b"\x16\x03\x01\x00\xff\xfe" * 50, 0),
    "half a request line": (b"POST /v1/mod", 1),
    "half a body, then silence": (b"POST %b HTTP/1.1\r\nContent-Length: 500\r\n\r\n{" % TARGET.encode(), 2),
    "endless headers": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, 0),
    "a huge length": (b"POST %b HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" % TARGET.encode(), 0),
    "chunks of nonsense": (b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" % TARGET.encode(), 0),
    "closes at once": (b"", 0),
    "asks and leaves": (request_of([1.0] * 8), 0),
    "asks 200 times and never reads": (request_of([1.0] * 8) * 200, 1),
}
HOSTILE_BODIES: dict[str, bytes] = {
    "deep nesting": b'{"instances": ' + b"[" * 50_000,
    "ragged": b'{"instances": [[1, 2], [3]]}',
    "wrong shape": b'{"instances": [[1, 2]]}',
    "text": b'{"instances": [["a"]]}',
    "NaN": b'{"instances": [[NaN, 1, 1, 1, 1, 1, 1, 1]]}',
    "numbers beyond all bounds": b'{"instances": [[1e999, 1, 1, 1, 1, 1, 1, 1]]}',
    "no such signature": b'{"signature_name": "no", "instances": [[1]]}',
    "six megabytes of brackets": b'{"instances": [' + b"[]," * 2_000_000 + b"[]]}",
    "ten megabytes": b"[" + b"1," * 5_000_000 + b"1]",
    "not UTF-8": b'{"instances": ["\xff\xfe"]}',
}


def be_hostile(port: int, stop: threading.Event, tally: Tally) -> None:
    """Send what no client should, a few a second; whatever becomes of it, nobody else may notice."""
    kinds = [*HOSTILE.items(), *((name, (body, -1.0)) for name, body in HOSTILE_BODIES.items())]
    while not stop.is_set():
        for name, (content, hold_s) in random.sample(kinds, len(kinds)):
            if stop.is_set():
                return
            data = content
            if hold_s < 0:
                data = b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (TARGET.encode(), len(content), content)
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                    client.sendall(data)
                    if hold_s < 0:
                        client.recv(100)
                    stop.wait(max(hold_s, 0))
            except OSError:
                pass
            tally.hostile[name] += 1
            stop.wait(0.3)


def change_versions(root: Path, models: Path, stop: threading.Event, tally: Tally, served: Callable[[], int]) -> None:
    """Deploy the next model, or roll back, every few seconds, until told to stop."""
    target = LocalTarget(root, probe=lambda *_: None)  # a probe is a second server, which would take this one's CPU
    factors = {target.versions(NAME).live: 1}  # by version
    turn = 1
    while not stop.wait(CHANGE_EVERY_S):
        tally.allowed = frozenset(range(1, VERSIONS + 1))
        if len(factors) > 1 and random.random() < 0.3:
            target.rollback(NAME)
            tally.changes["rollback"] += 1
        else:
            turn = turn % VERSIONS + 1
            copy = models / "next"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(models / str(turn), copy)
            (copy / "assets.extra").mkdir()
            (copy / "assets.extra" / "serial").write_text(str(time.time()))  # another version each time
            factors[deploy(DeployRequest(str(copy), NAME), target).version] = turn
            tally.changes["deploy"] += 1
        wanted = factors[target.versions(NAME).live]
        deadline_s = time.monotonic() + 60
        while served() != wanted:
            if time.monotonic() > deadline_s:
                tally.wrong.append(f"the change to version {target.versions(NAME).live} was not followed")
                break
            time.sleep(0.1)
        time.sleep(0.5)  # what was asked before the change may still be on its way
        tally.allowed = frozenset({wanted})


def watch_memory(pid: int, stop: threading.Event, tally: Tally) -> None:
    started_s = time.monotonic()
    while not stop.wait(1):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        tally.memory_bytes.append((time.monotonic() - started_s, pages * os.sysconf("SC_PAGE_SIZE")))


async def ask_all(port: int, rate: float, seconds: float, tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    until_s = time.perf_counter() + seconds
    askers = [Asker(rate / CONNECTIONS, until_s, tally, number) for number in range(CONNECTIONS)]
    for asker in askers:
        await loop.create_connection(lambda asker=asker: asker, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(asker.finished for asker in askers))


@contextmanager
def serving(root: Path) -> Iterator[ServerProcess]:
    """Serve on the first core that this process may use; all that asks, and deploys, is on the others."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])  # the server inherits it
    with ServerProcess(root) as server:
        os.sched_setaffinity(0, cores[1:] or cores)
        yield server


def run(scratch: Path, minutes: float, share: float) -> tuple[Tally, float]:
    models, root = scratch / "models", scratch / "root"
    root.mkdir()
    build(models)
    gc.collect()
    gc.freeze()  # TensorFlow's objects: looking through them is 70 ms in which nothing is asked
    tally = Tally(allowed=frozenset({1}))
    deploy(DeployRequest(str(models / "1"), NAME), LocalTarget(root, probe=lambda *_: None))
    with serving(root) as server:
        server.wait_until_available(NAME)
        port = int(server.url.rpartition(":")[2])

        def served() -> int:
            return round(server.post(TARGET, {"instances": [[1.0] * 8]}).document["predictions"][0][0])

        body = json.dumps({"instances": [[1.0] * 8]}).encode()
        drive(port, TARGET, body, connections=CONNECTIONS, seconds=2)
        capacity = drive(port, TARGET, body, connections=CONNECTIONS, seconds=5).rate
        stop = threading.Event()
        threads = [
            threading.Thread(target=be_hostile, args=(port, stop, tally)),
            threading.Thread(target=change_versions, args=(root, models, stop, tally, served)),
            threading.Thread(target=watch_memory, args=(server.pid, stop, tally)),
        ]
        for thread in threads:
            thread.start()
        try:
            asyncio.run(ask_all(port, capacity * share, minutes * 60, tally))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    return tally, capacity


def percentiles(times_ms: list[float]) -> dict[str, float]:
    times = sorted(times_ms)
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    found = {name: round(times[int(len(times) * share)], 2) for name, share in shares.items()}
    return {**found, "max": round(times[-1], 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tally, capacity = run(Path(scratch), given.minutes, given.share)
    tenth = [size for at_s, size in tally.memory_bytes if at_s >= given.minutes * 6][:1] or [0]
    last = [size for _, size in tally.memory_bytes[-5:]] or [0]
    figures = {
        "capacity_per_second": round(capacity, 1),
        "asked_per_second": round(capacity * given.share, 1),
        "minutes": given.minutes,
        "good_answers": tally.good,
        "wrong_answers": len(tally.wrong),
        "dropped_good_requests": len(tally.dropped),
        "asked_more_than_0_1_s_late": tally.late,
        "ms_to_the_answer": percentiles(tally.times_ms),
        "ms_since_due": percentiles(tally.since_due_ms),
        "changes": dict(tally.changes),
        "hostile_requests": sum(tally.hostile.values()),
        "memory_mb_after_a_tenth": round(tenth[0] / 1e6, 1),
        "memory_mb_at_the_end": round(max(last) / 1e6, 1),
    }
    print(json.dumps(figures, indent=1))
    for kind in (tally.wrong, tally.dropped):
        for text in kind[:10]:
            print(text, file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))
    grown = max(last) - tenth[0]
    is_flat = grown <= max(0.1 * tenth[0], 50e6)
    return 0 if not tally.wrong and not tally.dropped and is_flat else 1


if __name__ == "__main__":
    sys.exit(main())

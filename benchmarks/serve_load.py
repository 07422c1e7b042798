"""A server under 80 % of its capacity while versions are deployed and rolled back and hostile requests come in.

    python benchmarks/serve_load.py [--minutes 10] [--share 0.8] [--json FILE]

Measures the capacity of a small model, then asks at that share of it, at fixed times whether answers come or not, on 16
connections. Meanwhile a version is deployed or rolled back every few seconds through the local target, and one client
after the other sends what no client should. Every answer must be that of a version that may answer at that moment:
while a change is on its way any of the three models, else the live one alone. Exit 1 unless there was no wrong answer
and no dropped good request, and the memory at the end is no more than 10 % and 50 MB above that after the first tenth.
"""

from __future__ import annotations

import argparse
import asyncio
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
from collections.abc import Callable
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
VERSIONS = 3  # distinct models, which answer x times 1, 2 and 3


@dataclass
class Tally:
    """What has been seen. `allowed` are the factors that an answer may have at the moment."""

    allowed: set[int] = field(default_factory=set)
    good: int = 0
    wrong: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    late: int = 0
    times_ms: list[float] = field(default_factory=list)
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


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
    return int(head[9:12]), await reader.readexactly(length)


async def ask_at_a_rate(port: int, rate: float, until_s: float, tally: Tally, number: int) -> None:
    """One connection: a request every `1 / rate` seconds, late ones at once; what is due is always asked."""
    choice = random.Random(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    due_s = time.perf_counter() + choice.random() / rate
    while due_s < until_s:
        wait_s = due_s - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        elif wait_s < -1:
            tally.late += 1
        values = [float(choice.randrange(-1000, 1000)) for _ in range(8)]
        before = set(tally.allowed)
        try:
            started_s = time.perf_counter()
            writer.write(request_of(values))
            status, body = await asyncio.wait_for(answer_of(reader), 30)
            tally.times_ms.append((time.perf_counter() - started_s) * 1000)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as exc:
            tally.dropped.append(f"{type(exc).__name__}: {exc}")
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        else:
            if status != 200:
                tally.dropped.append(f"{status} {body[:200]!r}")
            elif not any(
                json.loads(body) == {"predictions": [[value * factor for value in values]]}
                for factor in before | tally.allowed
            ):
                tally.wrong.append(f"{values}: {body[:300]!r} while {before | tally.allowed}")
            else:
                tally.good += 1
        due_s += 1 / rate
    writer.close()


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
        tally.allowed.update(range(1, VERSIONS + 1))
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
        tally.allowed.intersection_update({wanted})


def watch_memory(pid: int, stop: threading.Event, tally: Tally) -> None:
    started_s = time.monotonic()
    while not stop.wait(1):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        tally.memory_bytes.append((time.monotonic() - started_s, pages * os.sysconf("SC_PAGE_SIZE")))


async def ask_all(port: int, rate: float, seconds: float, tally: Tally) -> None:
    until_s = time.perf_counter() + seconds
    asking = (ask_at_a_rate(port, rate / CONNECTIONS, until_s, tally, number) for number in range(CONNECTIONS))
    await asyncio.gather(*asking)


def run(scratch: Path, minutes: float, share: float) -> tuple[Tally, float]:
    models, root = scratch / "models", scratch / "root"
    root.mkdir()
    build(models)
    tally = Tally(allowed={1})
    deploy(DeployRequest(str(models / "1"), NAME), LocalTarget(root, probe=lambda *_: None))
    with ServerProcess(root) as server:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tally, capacity = run(Path(scratch), given.minutes, given.share)
    times = sorted(tally.times_ms)
    tenth = [size for at_s, size in tally.memory_bytes if at_s >= given.minutes * 6][:1] or [0]
    last = [size for _, size in tally.memory_bytes[-5:]] or [0]
    figures = {
        "capacity_per_second": round(capacity, 1),
        "asked_per_second": round(capacity * given.share, 1),
        "minutes": given.minutes,
        "good_answers": tally.good,
        "wrong_answers": len(tally.wrong),
        "dropped_good_requests": len(tally.dropped),
        "asked_more_than_1_s_late": tally.late,
        "p50_ms": round(times[len(times) // 2], 2),
        "p99_ms": round(times[int(len(times) * 0.99)], 2),
        "p999_ms": round(times[int(len(times) * 0.999)], 2),
        "max_ms": round(times[-1], 2),
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

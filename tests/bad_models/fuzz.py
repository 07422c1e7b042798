"""Feeds mutated and random SavedModels to the reader: python fuzz.py [--count 100000] [--seed 1]

Whatever a file holds, the only exceptions are servegraph's own, an input takes less than a second, and the process
stays below 200 MB. An input that breaks this is written to `found/`; once mended, it moves to `seeds/`, which the
test-suite reads on every run. The inputs follow from the seed: the same seed makes the same inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from servegraph.errors import ServegraphError, StorageError
from servegraph.inspect_graph.inspect import inspect_directory
from servegraph.savedmodel.reachability import training_baggage
from servegraph.storage.directory import FileInfo

HERE = Path(__file__).parent
MODELS = HERE.parent / "real_models"
SEEDS = HERE / "seeds"
MAX_SECONDS = 1.0
MAX_MEMORY_BYTES = 200 * 10**6
INDEX, SHARD = "variables/variables.index", "variables/variables.data-00000-of-00001"
GRAPH, TEXT_GRAPH = "saved_model.pb", "saved_model.pbtxt"
TARGETS = (GRAPH, GRAPH, GRAPH, INDEX, INDEX, SHARD, TEXT_GRAPH)

Files = Mapping[str, bytes]


class MemoryDirectory:
    """A directory in memory."""

    uri = "memory"

    def __init__(self, files: Files) -> None:
        self._files = files

    def files(self) -> list[FileInfo]:
        return [FileInfo(path, len(content)) for path, content in sorted(self._files.items())]

    def open(self, path: str) -> MemoryFile:
        return MemoryFile(self.read_bytes(path))

    def read_bytes(self, path: str) -> bytes:
        if path not in self._files:
            raise StorageError(f"{path} is not there.", code="NOT_FOUND")
        return self._files[path]

    def stream(self, path: str) -> BinaryIO:
        return io.BytesIO(self.read_bytes(path))

    def write_bytes(self, path: str, content: bytes) -> None:
        raise NotImplementedError


class MemoryFile:
    """A file in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)

    def pread(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]

    def close(self) -> None:
        pass


def look(files: Files) -> None:
    """Do everything that the reader does with a model. Raises only what must not be raised."""
    directory = MemoryDirectory(files)
    for read in (
        lambda: inspect_directory(directory, verify=True).to_json(),
        lambda: training_baggage(directory),
    ):
        with contextlib.suppress(ServegraphError):
            json.dumps(read())


def bases() -> list[dict[str, bytes]]:
    """The real models that inputs are made from."""
    found = []
    for graph in sorted(MODELS.glob(f"*/{GRAPH}")):
        paths = [path for path in graph.parent.rglob("*") if path.is_file()]
        found.append({str(path.relative_to(graph.parent)): path.read_bytes() for path in paths})
    return found


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        position = rng.randrange(len(changed))
        changed[position] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 16))):
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] if rng.random() < 0.5 else content[start:]


def remove(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice((1, 2, 7, 100)) :]


def insert(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + rng.randbytes(rng.choice((1, 2, 8, 100))) + content[start:]


def splice(content: bytes, rng: random.Random) -> bytes:
    """Repeat a stretch of the file somewhere else in it: whole fields twice, where one belongs."""
    start, target = rng.randrange(len(content)), rng.randrange(len(content))
    stretch = content[start : start + rng.choice((4, 40, 400, 4000))]
    return content[:target] + stretch + content[target:]


def lie_about_a_length(content: bytes, rng: random.Random) -> bytes:
    """Put a huge varint where a length may be."""
    start = rng.randrange(len(content))
    lie = rng.choice((b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x80" * 12, b"\xff\x7f"))
    return content[:start] + lie + content[start + rng.choice((0, 1, len(lie))) :]


def randomize(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 47, 48, 49, 300, 5000)))


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    flip_bits,
    set_bytes,
    set_bytes,
    cut,
    remove,
    insert,
    splice,
    lie_about_a_length,
    randomize,
)


def with_valid_checksums(index: bytes) -> bytes:
    """Mend the blocks' checksums of a mutated index, so that what is behind them is reached too."""
    import google_crc32c

    from servegraph.savedmodel.sstable import mask
    from servegraph.savedmodel.wire import Malformed, read_varint

    mended = bytearray(index)
    try:
        position, handles = len(index) - 48, []
        for _ in range(2):
            offset, position = read_varint(index, position)
            size, position = read_varint(index, position)
            handles.append((offset, size))
        handles.append((0, handles[0][0] - 5))
        for offset, size in handles:
            block = bytes(mended[offset : offset + size + 1])
            if offset >= 0 and size > 0 and offset + size + 5 <= len(mended):
                mended[offset + size + 1 : offset + size + 5] = mask(google_crc32c.value(block)).to_bytes(4, "little")
    except (IndexError, Malformed):
        pass
    return bytes(mended)


def inputs(count: int, seed: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield mutated models with the path of the file that was changed."""
    models = bases()
    texts = [text_graph(model) for model in models]
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        which = rng.randrange(len(models))
        files, target = dict(models[which]), rng.choice(TARGETS)
        if target == TEXT_GRAPH:
            del files[GRAPH]
            files[TEXT_GRAPH] = texts[which]
        if not files.get(target):
            continue
        for _ in range(rng.choice((1, 1, 2, 4))):
            files[target] = rng.choice(MUTATIONS)(files[target], rng) if files[target] else b""
        if target == INDEX and rng.random() < 0.7:
            files[target] = with_valid_checksums(files[target])
        yield target, files


def text_graph(model: Files) -> bytes:
    """A text form of a model's graph, as far as the reader's schema goes: no protobuf is needed."""
    from servegraph.savedmodel.pbtxt import SCHEMA
    from servegraph.savedmodel.wire import fields

    def write(content: bytes, schema: str, depth: int) -> Iterator[str]:
        by_number = {number: (name, kind) for name, (number, kind) in SCHEMA[schema].items()}
        for field in fields(content):
            name, kind = by_number.get(field.number, ("", ""))
            payload = content[field.start : field.end]
            if not name or name.startswith("["):
                continue
            if kind == "text":
                escaped = "".join(
                    chr(byte) if 32 <= byte < 127 and byte not in (34, 92) else f"\\{byte:03o}" for byte in payload
                )
                yield f'{"  " * depth}{name}: "{escaped}"\n'
            elif kind in ("number", "dtype"):
                yield f"{'  ' * depth}{name}: {field.value}\n"
            else:
                yield f"{'  ' * depth}{name} {{\n"
                yield from write(payload, kind, depth + 1)
                yield f"{'  ' * depth}}}\n"

    return "".join(write(model[GRAPH], "SavedModel", 0)).encode()


def run(count: int, seed: int, found: Path) -> int:
    """Look at `count` inputs; write those that break the rules to `found` and return how many they are."""
    broken, slowest, started = 0, 0.0, time.monotonic()
    for number, (target, files) in enumerate(inputs(count, seed)):
        before = time.process_time()
        problem = None
        try:
            look(files)
        except Exception as error:  # the very thing that is looked for
            problem = f"{type(error).__name__}: {error}"
        seconds = time.process_time() - before
        slowest = max(slowest, seconds)
        if seconds > MAX_SECONDS:
            problem = f"{seconds:.1f} s"
        if problem:
            broken += 1
            found.mkdir(exist_ok=True)
            (found / f"{seed}-{number}-{target.replace('/', '_')}").write_bytes(files[target])
            print(f"{number} {target}: {problem}", file=sys.stderr)
        if number % 5000 == 4999:
            print(f"{number + 1} inputs, {broken} broken, {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(f"{count} inputs, {broken} broken, slowest {slowest:.2f} s", file=sys.stderr)
    return broken


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    broken = run(arguments.count, arguments.seed, HERE / "found")
    memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{broken} broken, peak {memory_bytes / 1e6:.0f} MB")
    return 1 if broken or memory_bytes > MAX_MEMORY_BYTES else 0


if __name__ == "__main__":
    sys.exit(main())

"""A model of 10 GB is deployed with the memory that a small one takes: measured on the whole command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.emulators.gcs import FakeGcs
from tests.emulators.vertex import FakeVertex
from tests.tiny_models import write_tiny_model

MIB = 1 << 20


@pytest.fixture
def service() -> Iterator[FakeVertex]:
    with FakeVertex() as service:
        yield service


@pytest.fixture
def storage() -> Iterator[FakeGcs]:
    with FakeGcs() as storage:
        storage.make_bucket("bucket")
        storage.calls = deque(maxlen=100)  # the log would keep all that is sent
        yield storage


def peak_mib(model: Path, service: FakeVertex, storage: FakeGcs) -> float:
    """Deploy `model` in a process of its own and return the most memory that it had."""
    place = f"--target vertex --project p --region us-central1 --staging gs://bucket/models --api-url {service.url}"
    program = [sys.executable, "-c", "from servegraph_pipelines.cli import main; main()"]
    command = [*program, "deploy", model, "--name", model.name, *place.split()]
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": storage.url, "GOOGLE_CLOUD_PROJECT": "p"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        said = running.stderr.read()
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    assert running.returncode == 0, said
    return used.ru_maxrss / 1024


@pytest.mark.parametrize(
    "size_bytes",
    [pytest.param(512 * MIB, marks=pytest.mark.slow), pytest.param(10_000_000_000, marks=pytest.mark.large)],
)
def test_memory_does_not_grow_with_the_model(
    service: FakeVertex, storage: FakeGcs, tmp_path: Path, size_bytes: int
) -> None:
    small, large = write_tiny_model(tmp_path / "small"), write_tiny_model(tmp_path / "large")
    with (large / "variables" / "variables.data-00000-of-00001").open("wb") as file:
        file.truncate(size_bytes)  # a hole: it takes no disk
    little, much = (peak_mib(model, service, storage) for model in (small, large))
    print(f"{size_bytes:,} bytes: {much:.0f} MiB at most; a model of a few bytes: {little:.0f} MiB")
    assert storage.store.bucket("bucket")[stored(storage)].content.size == size_bytes
    assert much - little < 256


def stored(storage: FakeGcs) -> str:
    (name,) = (n for n in storage.names("bucket") if "/large/" in n and n.endswith("variables.data-00000-of-00001"))
    return name

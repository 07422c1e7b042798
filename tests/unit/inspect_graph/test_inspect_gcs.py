"""Inspecting a model on Cloud Storage: one listing, a few ranged reads, little fetched whatever its size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.gcs import FakeGcs

from servegraph.inspect_graph.inspect import inspect, inspect_directory
from servegraph.savedmodel.bundle_index import TensorEntry, encode_entry, encode_header
from servegraph.savedmodel.sstable import write_table
from servegraph.storage.gcs import GcsDirectory

MODELS = Path(__file__).parents[2] / "real_models"
MB, GB = 10**6, 10**9

# The client library drops failed answers unread, and their sockets close when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def fake() -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        yield server


@pytest.fixture
def client(fake: FakeGcs) -> Iterator[Any]:
    client = fake.client()
    yield client
    client.close()


def upload(fake: FakeGcs, model: Path) -> None:
    for path in sorted(model.rglob("*")):
        if path.is_file():
            fake.put("bucket", f"m/{path.relative_to(model)}", path.read_bytes())


def fetched_bytes(fake: FakeGcs) -> int:
    return sum(len(call.answer.body) for call in fake.calls)


@pytest.mark.parametrize("name", ["module", "v1_partitioned"])
def test_the_report_is_that_of_the_local_directory(name: str, fake: FakeGcs, client: Any) -> None:
    upload(fake, MODELS / name)
    remote = inspect_directory(GcsDirectory("gs://bucket/m", client), verify=True).to_json()
    local = inspect(str(MODELS / name), verify=True).to_json()
    assert {**remote, "uri": ""} == {**local, "uri": ""}


def test_ten_gigabytes_of_variables_cost_less_than_one_megabyte(fake: FakeGcs, client: Any, tmp_path: Path) -> None:
    upload(fake, MODELS / "v1_adam")
    rows = [(b"", encode_header(1))]
    for number in range(10):
        entry = TensorEntry(f"table_{number}", "float32", (250_000, 1000), 0, number * GB, GB, number)
        rows.append((entry.key.encode(), encode_entry(entry)))
    fake.put("bucket", "m/variables/variables.index", b"".join(write_table(iter(rows))))
    shard = tmp_path / "shard"
    with shard.open("wb") as file:
        os.truncate(file.fileno(), 10 * GB)
    fake.put("bucket", "m/variables/variables.data-00000-of-00001", shard)
    inspection = inspect_directory(GcsDirectory("gs://bucket/m", client))
    assert inspection.to_json()["variables"]["bytes"] == 10 * GB
    assert fetched_bytes(fake) < MB
    assert len(fake.calls) <= 6
    listings = [call for call in fake.calls if call.request.path.endswith("/o")]
    assert len(listings) == 1


def test_constants_are_skipped_not_fetched(fake: FakeGcs, client: Any, tmp_path: Path) -> None:
    from servegraph.savedmodel.wire import encode_bytes

    tensor = encode_bytes(8, encode_bytes(4, bytes(20 * MB)))  # an AttrValue with a TensorProto
    attr = encode_bytes(1, b"value") + encode_bytes(2, tensor)
    nodes = [
        encode_bytes(1, encode_bytes(1, b"weights_%d" % number) + encode_bytes(2, b"Const") + encode_bytes(5, attr))
        for number in range(5)
    ]
    meta_graph = encode_bytes(1, encode_bytes(4, b"serve")) + encode_bytes(2, b"".join(nodes))
    fake.put("bucket", "m/saved_model.pb", encode_bytes(2, meta_graph))
    inspection = inspect_directory(GcsDirectory("gs://bucket/m", client))
    (report,) = inspection.to_json()["meta_graphs"]
    assert report["const_bytes"] > 100 * MB
    assert fetched_bytes(fake) < MB


def test_small_tensors_are_verified_together(fake: FakeGcs, client: Any) -> None:
    upload(fake, MODELS / "v1_partitioned")
    inspection = inspect_directory(GcsDirectory("gs://bucket/m", client), verify=True)
    assert len(inspection.tensors) > 1
    shards = {info.path for info in inspection.files if ".data-" in info.path}
    assert sum(".data-" in call.request.path for call in fake.calls) <= len(shards)


def test_a_graph_is_not_fetched_twice(fake: FakeGcs, client: Any) -> None:
    upload(fake, MODELS / "keras_dense")
    inspect_directory(GcsDirectory("gs://bucket/m", client))
    size = (MODELS / "keras_dense/saved_model.pb").stat().st_size
    graph_calls = [call for call in fake.calls if "saved_model.pb" in call.request.path]
    assert sum(len(call.answer.body) for call in graph_calls) <= size

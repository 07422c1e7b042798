"""Uploads of a directory: in parts, create-only, checked, taken up where a killed one ended, the graph last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.gcs import FakeGcs
from tests.emulators.http_server import Request, Tampering

from servegraph.errors import StorageError
from servegraph.interrupt import terminated_as_interrupted
from servegraph.storage import open_dir
from servegraph.storage.gcs import GcsDirectory
from servegraph.storage.gcs_upload import Sizes, remove_below, staged_files, upload
from servegraph.storage.subset import Subset

KIB = 1024
SMALL = Sizes(chunk_bytes=256 * KIB, part_bytes=512 * KIB, workers=4)
URI = "gs://bucket/models/m"


@pytest.fixture
def fake() -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def client(fake: FakeGcs) -> Iterator[Any]:
    client = fake.client()
    yield client
    client.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "variables").mkdir(parents=True)
    (directory / "assets").mkdir()
    (directory / "saved_model.pb").write_bytes(b"graph")
    (directory / "assets" / "empty.txt").write_bytes(b"")
    (directory / "variables" / "variables.index").write_bytes(b"index")
    (directory / "variables" / "variables.data-00000-of-00001").write_bytes(os.urandom(3 * 1024 * KIB + 7))
    return directory


def contents(fake: FakeGcs) -> dict[str, bytes]:
    return {name.removeprefix("models/m/"): fake.content("bucket", name) for name in fake.names("bucket")}


def files(model: Path) -> dict[str, bytes]:
    return {str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()}


def test_all_files_are_there_and_the_graph_came_last(fake: FakeGcs, client: Any, model: Path) -> None:
    counted: list[int] = []
    upload(open_dir(model), URI, client, counted.append, sizes=SMALL)
    assert contents(fake) == files(model)
    assert sum(counted) == sum(map(len, files(model).values()))
    objects = fake.store.bucket("bucket")
    generations = {name: int(stored.resource["generation"]) for name, stored in objects.items()}
    assert max(generations, key=generations.__getitem__) == "models/m/saved_model.pb"
    assert objects["models/m/variables/variables.data-00000-of-00001"].resource["componentCount"] == 7
    assert staged_files(URI, client) == {name: len(content) for name, content in files(model).items()}


def test_a_second_upload_sends_nothing(fake: FakeGcs, client: Any, model: Path) -> None:
    upload(open_dir(model), URI, client, sizes=SMALL)
    fake.calls.clear()
    upload(open_dir(model), URI, client, sizes=SMALL)
    assert {call.request.method for call in fake.calls} == {"GET"}


def test_a_killed_upload_is_taken_up_where_it_ended(fake: FakeGcs, client: Any, model: Path) -> None:
    sent: list[int] = []

    class Killed(BaseException):
        pass

    def count(size_bytes: int) -> None:
        sent.append(size_bytes)
        if sum(sent) > 2_000_000:
            raise Killed

    with pytest.raises(Killed):
        upload(open_dir(model), URI, client, count, sizes=Sizes(SMALL.chunk_bytes, SMALL.part_bytes, workers=1))
    parts = {name: fake.content("bucket", name) for name in fake.names("bucket") if ".parts" in name}
    assert parts
    assert staged_files(URI, client).keys().isdisjoint({"saved_model.pb"})
    fake.calls.clear()
    upload(open_dir(model), URI, client, sizes=SMALL)
    assert contents(fake) == files(model)
    received = sum(len(call.request.body) for call in fake.calls if call.request.path.startswith("/upload"))
    assert received < len(files(model)["variables/variables.data-00000-of-00001"]) - 1_000_000


@pytest.mark.parametrize("after", [False, True])
def test_every_request_may_fail_once(fake: FakeGcs, client: Any, tmp_path: Path, after: bool) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    (model / "variables").write_bytes(b"v" * 1024)
    failed: set[str] = set()

    def once(request: Request) -> Tampering | None:
        key = f"{request.method} {request.path} {request.query.get('name')}"
        if key in failed:
            return None
        failed.add(key)
        return Tampering(after, 503)

    fake.tamper = once
    upload(open_dir(model), URI, client, sizes=SMALL)
    assert contents(fake) == files(model)
    assert len(failed) > 3


def test_another_file_in_its_place_is_an_error(fake: FakeGcs, client: Any, model: Path) -> None:
    fake.put("bucket", "models/m/variables/variables.index", b"other")
    with pytest.raises(StorageError) as caught:
        upload(open_dir(model), URI, client, sizes=SMALL)
    assert caught.value.code == "STAGED_DIFFERS"
    assert fake.content("bucket", "models/m/variables/variables.index") == b"other"
    assert "models/m/saved_model.pb" not in fake.names("bucket")


def test_what_is_said_before_the_last_file_keeps_it_away(fake: FakeGcs, client: Any, model: Path) -> None:
    def refuse() -> None:
        raise StorageError("changed meanwhile")

    with pytest.raises(StorageError, match="changed meanwhile"):
        upload(open_dir(model), URI, client, before_last=refuse, sizes=SMALL)
    assert "models/m/saved_model.pb" not in fake.names("bucket")


def test_from_another_bucket_the_bytes_stay_there(fake: FakeGcs, client: Any, model: Path) -> None:
    for name, content in files(model).items():
        fake.put("source", f"trained/{name}", content)
    upload(GcsDirectory("gs://source/trained", client), URI, client)
    assert contents(fake) == files(model)
    assert not [call for call in fake.calls if call.request.path.startswith(("/upload", "/download"))]


def test_of_a_part_of_a_directory_the_rest_stays(fake: FakeGcs, client: Any, model: Path) -> None:
    def is_graph(path: str) -> bool:
        return path == "saved_model.pb"

    for name, content in files(model).items():
        fake.put("source", f"trained/{name}", content)
    upload(Subset(GcsDirectory("gs://source/trained", client), is_graph), URI, client)
    assert not [call for call in fake.calls if call.request.path.startswith(("/upload", "/download"))]
    graph = {"saved_model.pb": files(model)["saved_model.pb"]}
    assert contents(fake) == graph
    upload(Subset(open_dir(model), is_graph), f"{URI}/local", client, sizes=SMALL)
    assert contents(fake) == graph | {"local/saved_model.pb": graph["saved_model.pb"]}
    with pytest.raises(StorageError) as caught:
        Subset(open_dir(model), is_graph).read_bytes("variables/variables.index")
    assert caught.value.code == "NOT_FOUND"


def test_an_interrupt_ends_an_upload_at_once(fake: FakeGcs, client: Any, model: Path) -> None:
    (model / "variables" / "large").write_bytes(bytes(32 * 1024 * KIB))
    sent: list[int] = []

    def count(size_bytes: int) -> None:
        sent.append(size_bytes)
        if len(sent) == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
        upload(open_dir(model), URI, client, count, sizes=SMALL)
    assert sum(sent) < 16 * 1024 * KIB
    assert "models/m/saved_model.pb" not in fake.names("bucket")


def test_removing_keeps_what_is_said(fake: FakeGcs, client: Any, model: Path) -> None:
    upload(open_dir(model), URI, client, sizes=SMALL)
    fake.put("bucket", "models/m/lock.json", b"{}")
    remove_below(URI, client, keep=f"{URI}/lock.json")
    assert fake.names("bucket") == ["models/m/lock.json"]


def test_a_large_file_needs_little_memory(fake: FakeGcs, tmp_path: Path) -> None:
    """256 MiB, all of it a hole in a file, from a process that may grow by a quarter of that."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    with (model / "weights").open("wb") as file:
        file.truncate(256 << 20)
    script = f"""
import resource, sys
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from servegraph.storage import open_dir
from servegraph.storage.gcs_upload import Sizes, upload
client = storage.Client(
    project="test", credentials=AnonymousCredentials(), client_options={{"api_endpoint": {fake.url!r}}}
)
upload(open_dir({str(tmp_path / "small")!r}), {URI + "-small"!r}, client)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
upload(open_dir({str(model)!r}), {URI!r}, client, sizes=Sizes(chunk_bytes=2 << 20, part_bytes=16 << 20, workers=4))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "saved_model.pb").write_bytes(b"graph")
    grown_mib = int(subprocess.check_output([sys.executable, "-c", script], text=True))
    assert grown_mib < 64
    assert fake.store.bucket("bucket")["models/m/weights"].content.size == 256 << 20

"""What is special to Cloud Storage: requests made, versions that change, errors of the service."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.emulators.gcs import FakeGcs

from servegraph.errors import StorageError
from servegraph.storage import match, open_dir
from servegraph.storage.fetch import fetch_directory
from servegraph.storage.gcs import GcsDirectory, default_client

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


def test_a_large_model_costs_one_listing_and_the_ranges_asked_for(fake: FakeGcs, client: Any, tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    with shard.open("wb") as file:
        os.truncate(file.fileno(), 10_000_000_000)
    fake.put("bucket", "m/variables/variables.data-00000-of-00001", shard)
    fake.put("bucket", "m/saved_model.pb", b"graph")
    directory = GcsDirectory("gs://bucket/m", client)
    assert sum(info.size_bytes for info in directory.files()) == 10_000_000_005
    file = directory.open("variables/variables.data-00000-of-00001")
    assert file.pread(9_999_999_990, 100) == bytes(10)
    assert file.pread(0, 4096) == bytes(4096)
    assert [call.request.headers["Range"] for call in fake.calls] == [
        None,
        "bytes=9999999990-9999999999",
        "bytes=0-4095",
    ]
    assert sum(len(call.answer.body) for call in fake.calls) < 5000


def test_a_long_listing_is_read_to_its_end(fake: FakeGcs, client: Any) -> None:
    for number in range(2500):
        fake.put("bucket", f"m/{number:04}", b"")
    assert len(GcsDirectory("gs://bucket/m", client).files()) == 2500
    assert len(fake.calls) == 3


def test_a_whole_bucket_is_a_directory_and_markers_of_folders_are_not_files(fake: FakeGcs, client: Any) -> None:
    fake.put("bucket", "folder/", b"")
    fake.put("bucket", "folder/f", b"x")
    assert [info.path for info in GcsDirectory("gs://bucket", client).files()] == ["folder/f"]
    assert [ref.uri for ref in match("gs://bucket", client=client)] == ["gs://bucket/folder/f"]


def test_a_file_overwritten_while_it_is_read_is_an_error(fake: FakeGcs, client: Any) -> None:
    fake.put("bucket", "m/f", b"old content")
    directory = GcsDirectory("gs://bucket/m", client)
    file = directory.open("f")
    assert file.pread(0, 3) == b"old"
    fake.put("bucket", "m/f", b"new content")
    with pytest.raises(StorageError) as caught:
        file.pread(4, 7)
    assert caught.value.code == "CHANGED"
    (ref,) = match("gs://bucket/m/f", client=client)
    fake.put("bucket", "m/f", b"newer")
    with ref.open() as stream, pytest.raises(StorageError) as caught:
        stream.read()
    assert caught.value.code == "CHANGED"


def test_what_was_written_is_what_is_opened(fake: FakeGcs, client: Any) -> None:
    fake.put("bucket", "m/f", b"old")
    directory = GcsDirectory("gs://bucket/m", client)
    directory.files()
    directory.write_bytes("f", b"longer content")
    assert directory.open("f").pread(0, 100) == b"longer content"


@pytest.mark.parametrize(("status", "code"), [(401, "NO_CREDENTIALS"), (403, "NO_ACCESS"), (412, "CHANGED")])
def test_what_the_service_refuses(fake: FakeGcs, client: Any, status: int, code: str) -> None:
    fake.put("bucket", "m/f", b"x")
    directory = GcsDirectory("gs://bucket/m", client)
    actions = [
        directory.files,
        lambda: directory.open("f"),
        lambda: directory.read_bytes("f"),
        lambda: directory.write_bytes("f", b""),
        lambda: match("gs://bucket/m/f", client=client),
        lambda: match("gs://bucket/m/*", client=client),
    ]
    for action in actions:
        fake.fail_next(status)
        with pytest.raises(StorageError) as caught:
            action()
        assert caught.value.code == code
        assert caught.value.fix


def test_a_bucket_that_does_not_exist(client: Any) -> None:
    with pytest.raises(StorageError, match="bucket does not exist") as caught:
        GcsDirectory("gs://missing/m", client).files()
    assert caught.value.code == "NOT_FOUND"


def test_a_passing_failure_is_retried(fake: FakeGcs, client: Any) -> None:
    fake.put("bucket", "m/f", b"content")
    directory = GcsDirectory("gs://bucket/m", client)
    fake.fail_next(503)
    assert directory.read_bytes("f") == b"content"
    fake.fail_next(503)
    directory.write_bytes("f", b"new")
    assert fake.content("bucket", "m/f") == b"new"


def test_stored_bytes_are_never_transcoded(fake: FakeGcs, client: Any) -> None:
    stored = gzip.compress(b"a,b\n" * 1000)
    fake.put("bucket", "d/t.csv", stored, contentEncoding="gzip")
    assert GcsDirectory("gs://bucket/d", client).read_bytes("t.csv") == stored
    (ref,) = match("gs://bucket/d/t.csv", client=client)
    assert (ref.size_bytes, ref.compression) == (len(stored), "gzip")
    with ref.open_binary() as file:
        assert file.read() == b"a,b\n" * 1000


def test_the_environment_names_the_emulator(fake: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.put("bucket", "m/f", b"content")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    assert open_dir("gs://bucket/m").read_bytes("f") == b"content"
    assert len(match("gs://bucket/m")) == 1


@pytest.mark.parametrize(
    ("names", "code"),
    [(["m/../../outside/x"], "BAD_PATH"), (["m/{tmp_path}/x/y"], "BAD_PATH"), (["m/a", "m/a/b"], "STORAGE")],
)
def test_names_that_are_no_files_of_a_directory(
    fake: FakeGcs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: list[str], code: str
) -> None:
    for name in names:
        fake.put("bucket", name.format(tmp_path=tmp_path), b"")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    (tmp_path / "one/into").mkdir(parents=True)
    with pytest.raises(StorageError) as caught:
        fetch_directory("gs://bucket/m", tmp_path / "one/into")
    assert caught.value.code == code
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["one", "into", *(["a"] if code == "STORAGE" else [])]


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(StorageError) as caught:
        default_client("gs://bucket/m")
    assert caught.value.code == "NO_CREDENTIALS"

"""The emulated Cloud Storage is strict where tests rely on it, seen through the real client library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, GoogleAPICallError, NotFound, PreconditionFailed
from google.cloud.storage import transfer_manager
from tests.emulators.gcs import FakeGcs
from tests.emulators.gcs_store import glob_pattern

# The client library drops failed answers unread, and their sockets close when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

LARGE = bytes(range(256)) * 4096 * 6  # 6 MiB


@pytest.fixture
def fake() -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        server.make_bucket("b")
        yield server


@pytest.fixture
def bucket(fake: FakeGcs) -> Iterator[Any]:
    client = fake.client()
    yield client.bucket("b")
    client.close()


def refusal(action: Callable[[], object]) -> int:
    with pytest.raises(GoogleAPICallError) as caught:
        action()
    return int(caught.value.code or 0)


def test_metadata_and_checksums_survive_a_round_trip(bucket: Any) -> None:
    blob = bucket.blob("a b/ü#?.txt")
    blob.metadata = {"digest": "1"}
    blob.upload_from_string(b"123456789", content_type="text/plain", checksum="crc32c")
    found = bucket.get_blob("a b/ü#?.txt")
    assert (found.size, found.content_type, found.metadata) == (9, "text/plain", {"digest": "1"})
    assert found.crc32c == "4waSgw=="  # the check value of CRC-32C, E3069283
    assert found.md5_hash == "JfnnlDI7RTiF9RgfG2JNCw=="
    assert found.download_as_bytes() == b"123456789"  # through mediaLink, which leads here


def test_a_wrong_checksum_is_refused(bucket: Any) -> None:
    blob = bucket.blob("x")
    blob.crc32c = "AAAAAA=="
    with pytest.raises(BadRequest, match="crc32c"):
        blob.upload_from_string(b"content", checksum=None)


def test_preconditions_hold_on_every_verb(bucket: Any) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"1")
    stale = {"if_generation_match": 1}
    actions: list[Callable[[], object]] = [
        lambda: blob.upload_from_string(b"2", **stale),
        lambda: blob.upload_from_string(b"2", if_generation_match=0),
        lambda: bucket.blob("x", chunk_size=1 << 18).upload_from_string(b"2", if_generation_match=0),
        lambda: blob.download_as_bytes(**stale),
        lambda: blob.reload(**stale),
        lambda: blob.patch(**stale),
        lambda: blob.delete(**stale),
        lambda: blob.compose([bucket.blob("x")], if_generation_match=0),
        lambda: blob.compose([bucket.blob("x")], if_source_generation_match=[1]),
        lambda: bucket.blob("y").rewrite(blob, if_source_generation_match=1),
        lambda: blob.reload(if_metageneration_match=9),
    ]
    assert [refusal(action) for action in actions] == [412] * len(actions)
    assert bucket.blob("x").download_as_bytes() == b"1"


def test_of_racing_creators_exactly_one_wins(fake: FakeGcs, bucket: Any) -> None:
    def create(number: int) -> bool:
        try:
            bucket.blob("lock").upload_from_string(str(number), if_generation_match=0)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(32)))
    assert sum(won) == 1
    assert fake.content("b", "lock") == str(won.index(True)).encode()


def test_generations_and_metagenerations(bucket: Any) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"1")
    first = blob.generation
    blob.metadata = {"k": "v"}
    blob.patch()
    assert (blob.generation, blob.metageneration) == (first, 2)
    blob.upload_from_string(b"2")
    assert (blob.generation > first, blob.metageneration) == (True, 1)
    with pytest.raises(NotFound):
        bucket.blob("x", generation=first).download_as_bytes()


def test_resumable_upload_in_chunks(fake: FakeGcs, bucket: Any) -> None:
    with bucket.blob("x").open("wb", chunk_size=1 << 20, content_type="text/plain") as file:
        file.write(LARGE)
    assert fake.content("b", "x") == LARGE
    assert [call.answer.status for call in fake.calls].count(308) >= 5


def test_xml_multipart_upload(fake: FakeGcs, bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    transfer_manager.upload_chunks_concurrently(
        str(tmp_path / "large"), bucket.blob("x"), chunk_size=5 << 20, worker_type="thread", max_workers=2
    )
    assert fake.content("b", "x") == LARGE
    assert bucket.get_blob("x").component_count == 2


def test_compose(bucket: Any) -> None:
    for name in ("1", "2"):
        bucket.blob(name).upload_from_string(name.encode())
    whole = bucket.blob("whole")
    whole.compose([bucket.blob("1"), bucket.blob("2"), bucket.blob("1")])
    whole.reload()
    assert (whole.download_as_bytes(), whole.component_count, whole.md5_hash) == (b"121", 3, None)
    assert refusal(lambda: whole.compose([bucket.blob("1")] * 33)) == 400


def test_ranges(bucket: Any) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"0123456789")
    assert blob.download_as_bytes(start=3, end=5) == b"345"
    assert blob.download_as_bytes(start=8, end=99) == b"89"
    assert blob.download_as_bytes(start=-2) == b"89"
    assert refusal(lambda: blob.download_as_bytes(start=10)) == 416


def test_listing(fake: FakeGcs, bucket: Any) -> None:
    for name in ["a/1", "a/b/2", "a/b/3", "c", "d/"]:
        fake.put("b", name, b"")
    assert [blob.name for blob in bucket.list_blobs(page_size=2)] == ["a/1", "a/b/2", "a/b/3", "c", "d/"]
    assert len(fake.calls) == 3
    pages = bucket.list_blobs(prefix="a/", delimiter="/", page_size=1)
    assert [blob.name for blob in pages] == ["a/1"]
    assert pages.prefixes == {"a/b/"}
    assert [blob.name for blob in bucket.list_blobs(match_glob="a/**")] == ["a/1", "a/b/2", "a/b/3"]
    assert [blob.name for blob in bucket.list_blobs(start_offset="a/b/3", end_offset="d")] == ["a/b/3", "c"]
    (only,) = bucket.list_blobs(prefix="c", fields="items(name)")
    assert only.size is None


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["x.csv"]),
        ("**.csv", ["x.csv", "a/x.csv", "a/b/x.csv"]),
        ("**/x.csv", ["x.csv", "a/x.csv", "a/b/x.csv"]),
        ("a/?.csv", ["a/x.csv"]),
        ("a/[!a-w].csv", ["a/x.csv"]),
        ("{a,c}/x.csv", ["a/x.csv"]),
        ("x,csv", []),
    ],
)
def test_globs(pattern: str, names: list[str]) -> None:
    all_names = ["x.csv", "a/x.csv", "a/b/x.csv", "a/xy.csvx"]
    assert [name for name in all_names if glob_pattern(pattern).fullmatch(name)] == names


def test_buckets(fake: FakeGcs, bucket: Any) -> None:
    bucket.client.create_bucket("new")
    assert refusal(lambda: bucket.client.create_bucket("new")) == 409
    fake.put("new", "x", b"")
    assert refusal(bucket.client.bucket("new").delete) == 409
    bucket.client.bucket("new").blob("x").delete()
    bucket.client.bucket("new").delete()
    assert not bucket.client.bucket("new").exists()


def test_an_unknown_parameter_is_refused(bucket: Any) -> None:
    assert refusal(lambda: list(bucket.list_blobs(versions=True))) == 400

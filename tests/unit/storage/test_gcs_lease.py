"""The lease on Cloud Storage when it cannot be renewed: whoever holds it must not go on where another may begin."""

import json
import socket
import time
from pathlib import Path

import pytest
from google.api_core.exceptions import NotFound, PreconditionFailed
from google.auth.exceptions import TransportError

from servegraph.errors import DeployRefused
from servegraph.storage.gcs_lease import leased

URI = "gs://bucket/lock"
TTL_S = 0.4


class Bucket:
    """One object, in memory; `error` is what the next writes meet."""

    def __init__(self):
        self.content, self.generation, self.error = b"", 0, None

    def bucket(self, _name):
        return self

    def blob(self, name):
        return Blob(self, name)


class Blob:
    def __init__(self, bucket, name):
        self.bucket, self.name, self.generation = bucket, name, None

    def upload_from_string(self, content, content_type, if_generation_match):
        assert content_type == "application/json"
        if self.bucket.error:
            raise self.bucket.error
        if if_generation_match != self.bucket.generation:
            raise PreconditionFailed("generation")
        self.bucket.content, self.bucket.generation = content, self.bucket.generation + 1
        self.generation = self.bucket.generation

    def download_as_bytes(self):
        if not self.bucket.generation:
            raise NotFound(self.name)
        self.generation = self.bucket.generation
        return self.bucket.content

    def delete(self, if_generation_match):
        if if_generation_match != self.bucket.generation:
            raise PreconditionFailed("generation")
        self.bucket.generation = 0


def test_a_token_that_cannot_be_renewed_for_a_while_loses_nothing():
    bucket = Bucket()
    with leased(URI, bucket, TTL_S) as lease:
        bucket.error = TransportError("the metadata server does not answer")
        time.sleep(TTL_S / 2)
        bucket.error = None
        time.sleep(TTL_S)
        lease.check()
        with pytest.raises(DeployRefused, match="did not end within") as refused, leased(URI, bucket, TTL_S, 2 * TTL_S):
            pass
        assert refused.value.code == "LOCKED"
    assert not bucket.generation


@pytest.mark.parametrize("error", [ConnectionError("no route"), TransportError("no answer")])
def test_who_cannot_renew_it_in_time_holds_it_no_longer(error):
    bucket = Bucket()
    with leased(URI, bucket, TTL_S) as lease:
        bucket.error = error
        time.sleep(1.5 * TTL_S)
        with pytest.raises(DeployRefused, match="did not renew its lock in time") as lost:
            lease.check()
        assert lost.value.code == "LOCK_LOST"


@pytest.mark.parametrize(("pids", "is_taken"), [(None, True), ("pid:[1]", False)])
def test_a_dead_process_holds_nothing_unless_its_pid_is_of_another_container(pids, is_taken):
    bucket = Bucket()
    link = Path("/proc/self/ns/pid")
    here = str(link.readlink()) if link.is_symlink() else ""
    holder = {"pid": 2**22 + 1, "host": socket.gethostname(), "pids": pids or here}  # above any pid of Linux
    bucket.content, bucket.generation = json.dumps(holder).encode(), 1
    try:
        with leased(URI, bucket, ttl_s=60.0, timeout_s=0.1):
            assert is_taken
    except DeployRefused as refused:
        assert refused.code == "LOCKED"
        assert not is_taken

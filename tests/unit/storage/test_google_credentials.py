"""Credentials that are none: told in words, by every way to Google's services, and never shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from servegraph.deploy_version.google_http import open_client
from servegraph.deploy_version.targets.vertex_api import VertexApi
from servegraph.errors import ServegraphError
from servegraph.storage.gcs import GcsDirectory

KEY = "c2VjcmV0IGtleQ" * 40
CONTENT = json.dumps({"type": "service_account", "private_key": f"-----BEGIN PRIVATE KEY-----\n{KEY}"})
WAYS: dict[str, Callable[[], object]] = {
    "vertex": lambda: VertexApi("us-central1").read("models.get", {"name": "projects/p/locations/r/models/m"}),
    "ai-platform": lambda: open_client("ml", "v1", "https://ml.googleapis.com", "cloud-platform", 1.0),
    "storage": lambda: GcsDirectory("gs://bucket/model").files(),
}


def refusal(way: str, value: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", value)
    with pytest.raises(ServegraphError) as caught:
        WAYS[way]()
    assert caught.value.code == "NO_CREDENTIALS" and "path of a file" in caught.value.fix
    return caught.value.message


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [CONTENT, base64.b64encode(CONTENT.encode()).decode(), f"[\n{KEY}"])
def test_their_content_in_the_place_of_a_path_is_not_shown(
    way: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(way, value, monkeypatch)
    assert "may hold the credentials themselves" in message
    assert KEY not in message and value[:20] not in message


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_read_is_named(way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    rows = {str(tmp_path): "Is a directory", f"{tmp_path}/list.json": "no JSON object", f"{tmp_path}/bytes": "not JSON"}
    for value, words in {**rows, f"{tmp_path}/none": "No such file"}.items():
        message = refusal(way, value, monkeypatch)
        assert value in message and words in message

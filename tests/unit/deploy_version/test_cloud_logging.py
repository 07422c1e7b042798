"""Logs that cannot be read: one error of ours, so that whoever asks for them on the way says what it was about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.emulators.http_server import Answer, LoopbackServer, json_answer

from servegraph.deploy_version.cloud_logging import CloudLogging
from servegraph.errors import DeployRefused


def test_credentials_that_are_used_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key = rsa.generate_private_key(65537, 2048).private_bytes(*encoding).decode()
    refusal = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    with LoopbackServer(lambda request: json_answer(refusal, 400)) as server:
        account = {"type": "service_account", "client_email": "a@p.iam.gserviceaccount.com", "private_key": key}
        (tmp_path / "key.json").write_text(json.dumps({**account, "token_uri": f"{server.url}/token"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        logging = CloudLogging("p")
        with pytest.raises(DeployRefused) as caught:
            logging.last_lines('resource.type="ml_job"')
        logging.close()
    assert caught.value.code == "NO_CREDENTIALS" and "Invalid JWT Signature" in caught.value.message


def test_what_is_no_answer_of_the_service() -> None:
    with LoopbackServer(lambda request: Answer(headers={"Content-Type": "text/html"}, body=b"<p>Log in</p>")) as server:
        logging = CloudLogging("p", server.url)
        with pytest.raises(DeployRefused) as caught:
            logging.last_lines('resource.type="ml_job"')
        logging.close()
    assert caught.value.code == "UNREADABLE_ANSWER"

"""A cluster's configuration that cannot be used: what is wrong with it is said, and no token is."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from servegraph.deploy_version.targets.kserve_api import KserveApi
from servegraph.errors import DeployRefused

CONFIG = """
apiVersion: v1
kind: Config
current-context: {context}
contexts: [{{name: c, context: {{cluster: k, user: u}}}}]
clusters: [{{name: k, cluster: {{server: "https://127.0.0.1:1"{more}}}}}]
users: [{{name: u, user: {{token: "{token}"}}}}]
"""


def config(context: str = "c", more: str = "", token: str = "secret") -> str:
    return CONFIG.format(context=context, more=more, token=token)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [1\nb", "the kubeconfig is none. line 2"),
        ("- 1\n", "the kubeconfig is none."),
        (config(context="other"), "other"),
        (config(more=", certificate-authority: /nowhere/ca.crt"), "/nowhere/ca.crt"),
        (config(token="secret\\nmore"), "an end of line"),
        (config().replace('token: "secret"', "tokenFile: /nowhere/token"), "/nowhere/token cannot be read"),
        (None, "No configuration found"),
    ],
)
def test_what_is_wrong_is_said(
    content: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(DeployRefused) as caught:
        KserveApi("default").get("ConfigMap", "m")
    assert caught.value.code == "NO_CREDENTIALS"
    assert words in caught.value.message and "secret" not in str(caught.value)


def test_a_token_file_may_end_in_an_end_of_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As kubectl has it, and `echo` writes it. The loader sets the token again before each request."""
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers["authorization"])
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / "token").write_text("of-a-file\n")
        place = f"http://127.0.0.1:{server.server_port}"
        content = config().replace("https://127.0.0.1:1", place).replace('token: "secret"', "tokenFile: token")
        (tmp_path / "config").write_text(content)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        api = KserveApi("default")
        assert [api.get("ConfigMap", "m"), api.get("InferenceService", "m")] == [None, None]
        api.close()
        server.shutdown()
    assert sent == ["Bearer of-a-file"] * 2

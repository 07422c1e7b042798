"""A cluster's configuration that cannot be used: what is wrong with it is said, and no token is."""

from __future__ import annotations

from pathlib import Path

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

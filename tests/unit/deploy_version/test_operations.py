"""What a long-running operation that failed is taken for, by its code of google.rpc.Code and its words."""

import pytest

from servegraph.deploy_version.faults import Patience
from servegraph.deploy_version.google_api import Operations
from servegraph.errors import DeployRefused


@pytest.mark.parametrize(
    ("number", "words", "code", "fix"),
    [
        (3, "Invalid image URI.", "REJECTED_BY_SERVICE", "Mend what the service names"),
        (5, "Image not found.", "REJECTED_BY_SERVICE", "Mend what the service names"),
        (7, "Permission denied on artifact gs://b/m.", "NO_ACCESS", "Grant it to the account"),
        (8, "Out of stock.", "NO_CAPACITY", "Ask for quota"),
        (9, "Model server never became ready.", "CANNOT_SERVE", "See the logs of the container"),
        (14, "Try later.", "SERVICE_UNAVAILABLE", "Run again"),
    ],
)
def test_each_code_says_what_to_do(number, words, code, fix):
    running = Operations(
        lambda name: {"done": True, "error": {"code": number, "message": words}}, lambda name: None, 0.01, Patience
    )
    with pytest.raises(DeployRefused, match=f"models.upload failed: {words.rstrip('.')}") as failed:
        running.wait("operations/1", "models.upload")
    assert failed.value.code == code and failed.value.fix.startswith(fix)


@pytest.mark.parametrize("is_ours", [True, False])
def test_one_that_never_ends_is_cancelled_where_it_is_ours(is_ours):
    cancelled = []
    running = Operations(lambda name: {"done": False}, cancelled.append, 0.01, Patience, timeout_s=0)
    with pytest.raises(DeployRefused, match="did not end within 0 s") as failed:
        running.wait("operations/1", "endpoints.deployModel", is_ours=is_ours)
    assert failed.value.code == "CANNOT_SERVE"
    assert cancelled == (["operations/1"] if is_ours else [])

import json

import pytest
from kfp import dsl

from servegraph import artifacts
from servegraph.errors import InputError


def through_kfp(artifact):
    """Metadata as the next step sees it: JSON in which every number became a float."""
    text = json.dumps(artifact.metadata)
    return dsl.Artifact(uri="x", metadata=json.loads(text, parse_int=float))


def test_what_is_recorded_is_recalled_with_its_types():
    facts = artifacts.TrainedModel("model.keras", 123, "m:f", {"accuracy": 0.5})
    artifact = dsl.Artifact(uri="x")
    artifacts.record(artifact, facts)
    recalled = artifacts.recall(through_kfp(artifact), artifacts.TrainedModel)
    assert recalled == facts
    assert isinstance(recalled.size_bytes, int)


def test_an_artifact_from_elsewhere_has_no_facts():
    assert artifacts.recall(dsl.Artifact(uri="x"), artifacts.ServingModel) is None


def test_facts_of_another_version_are_refused():
    artifact = dsl.Artifact(uri="x", metadata={"ServingModel": {"size": 3}})
    with pytest.raises(InputError) as caught:
        artifacts.recall(artifact, artifacts.ServingModel)
    assert caught.value.code == "BAD_ARTIFACT_METADATA"

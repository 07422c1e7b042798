"""What the config map of an InferenceService remembers of its versions."""

import json
from dataclasses import asdict

from servegraph.deploy_version.targets.kserve_objects import Memory, recall


def test_a_memory_whose_only_version_is_gone_is_not_damaged():
    written = json.dumps(asdict(Memory(last=3)))
    assert recall({"metadata": {"name": "census-servegraph"}, "data": {"versions.json": written}}) == Memory(last=3)

"""Invariants over every row of the tables that inspection goes by: findings, operations, runtimes, roles."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

import servegraph
from servegraph.inspect_graph.inspection import STATEFUL
from servegraph.inspect_graph.rules import (
    _ASKED,
    _PLATFORM,
    _SAFE,
    _WEIGHT,
    _WHOLE,
    RULES,
    SEVERITIES,
    Rule,
)
from servegraph.inspect_graph.runtimes import RUNTIMES, VERDICTS, version_of
from servegraph.inspect_graph.security import HARMLESS
from servegraph.savedmodel.dtypes import BY_NAME, BY_NUMBER, DTYPES
from servegraph.savedmodel.ops import (
    BATCH_NORM,
    DANGER_OF,
    DANGEROUS,
    SHARED_OPS,
    TRAINING,
    VARIABLE_OPS,
    known_ops,
    training_kind,
)
from servegraph.savedmodel.pbtxt import SCHEMA

SOURCES = list(Path(servegraph.__file__).parent.glob("inspect_graph/*.py"))
SOURCES += Path(servegraph.__file__).parent.glob("savedmodel/*.py")
# Codes of errors that no finding is made of.
NO_FINDINGS = {
    *(
        "NOT_A_SAVED_MODEL",
        "NO_MODEL",
        "BAD_TENSOR",
        "MODEL_NOT_SERVABLE",
        "BAD_GOLDEN_REQUESTS",
        "BAD_ROW",
    )
}


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_rule(rule: Rule) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", rule.code)
    assert rule.severity in SEVERITIES
    assert rule.meaning.endswith(".")
    assert rule.fix.endswith((".", "…."))
    number = re.fullmatch(r"R(\d+)", rule.requirement)
    assert number
    assert 1 <= int(number[1]) <= 20


def test_codes_are_unique() -> None:
    assert len(RULES) == sum(map(len, (_WHOLE, _ASKED, _WEIGHT, _SAFE, _PLATFORM)))


def test_every_rule_is_used_and_every_use_is_a_rule() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES if path.name != "rules.py")
    assert [code for code in RULES if f'"{code}"' not in text] == []
    codes_of_errors = set(re.findall(r'code="([A-Z_]+)"', text))
    assert codes_of_errors <= set(RULES) | NO_FINDINGS


def test_requirements_of_the_source_are_covered() -> None:
    assert {"R2", "R3", "R7", "R10", "R12", "R13", "R14", "R15", "R18", "R20"} <= {
        rule.requirement for rule in RULES.values()
    }


@pytest.mark.parametrize("rule", TRAINING, ids=lambda rule: rule.kind)
def test_a_training_rule_matches_operations_that_exist(rule) -> None:
    assert any(re.fullmatch(rule.pattern, op) for op in known_ops())


def test_no_operation_is_for_training_in_two_ways() -> None:
    for op in known_ops():
        assert sum(bool(re.fullmatch(rule.pattern, op)) for rule in TRAINING) <= 1, op


@pytest.mark.parametrize(
    "op",
    [
        "Conv2DBackpropInput",
        "Conv3DBackpropInputV2",
        "DepthwiseConv2dNativeBackpropInput",
        "StopGradient",
        "PreventGradient",
        "MatMul",
        "FusedBatchNormV3",
        "ReadVariableOp",
        "AssignVariableOp",
        "LookupTableFindV2",
        "ParseExampleV2",
        "RandomUniform",
        "Merge",
        "TensorArrayReadV3",
        "While",
        "Print",
        "QuantizeAndDequantizeV4",
        "IteratorGetDevice",
        "SparseApply",
        "Gradient",
    ],
)
def test_what_serving_may_need_is_not_for_training(op: str) -> None:
    assert training_kind(op) is None


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("ResourceApplyAdamWithAmsgrad", "optimizer"),
        ("ResourceSparseApplyKerasMomentum", "optimizer"),
        ("SparseApplyFtrlV2", "optimizer"),
        ("ApplyGradientDescent", "optimizer"),
        ("ReluGrad", "gradient"),
        ("FusedBatchNormGradV3", "gradient"),
        ("Conv2DBackpropFilter", "gradient"),
        ("MaxPoolGradGradWithArgmax", "gradient"),
        ("SymbolicGradient", "gradient"),
        ("QueueDequeueManyV2", "queue"),
        ("TFRecordReaderV2", "reader"),
        ("IteratorGetNext", "reader"),
        ("SparseSoftmaxCrossEntropyWithLogits", "loss"),
        ("WriteScalarSummary", "summary"),
    ],
)
def test_what_is_for_training(op: str, kind: str) -> None:
    assert op in known_ops()
    assert training_kind(op) == kind


def test_dangerous_operations_exist_and_have_one_row() -> None:
    names = [op for rule in DANGEROUS for op in rule.ops.split()]
    assert len(names) == len(set(names))
    # _Send and the like are hidden from the list of some builds; RemoteFusedGraphExecute was removed in 2.16.
    assert set(names) - known_ops().keys() <= {"RemoteFusedGraphExecute"}
    assert set(HARMLESS) <= set(DANGER_OF)


def test_other_named_operations_exist() -> None:
    named = BATCH_NORM | VARIABLE_OPS | SHARED_OPS | {op for ops in STATEFUL.values() for op in ops}
    assert named <= known_ops().keys()


def test_the_list_of_operations() -> None:
    assert len(known_ops()) == 1908
    assert {row.since for row in known_ops().values()} == {None, "2.1", "2.6", "2.11", "2.14", "2.15", "2.21"}
    assert known_ops()["PartitionedCall"].calls_functions
    assert not known_ops()["MatMul"].calls_functions


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
def test_runtime(runtime) -> None:
    assert version_of(runtime.tf_version)
    assert runtime.platform in ("ai-platform", "vertex", "kserve", "tf-serving", "servegraph")
    assert runtime.available_until is None or runtime.available_until > date(2020, 1, 1)
    assert runtime.source
    assert runtime.name


def test_verdicts_are_explained() -> None:
    assert set(VERDICTS) == {"loads", "lacks_operations", "not_promised", "unknown"}


def test_dtypes_are_the_enum_without_gaps() -> None:
    assert [row.number for row in DTYPES] == list(range(1, len(DTYPES) + 1))
    assert len(BY_NAME) == len(BY_NUMBER) == len(DTYPES)


def test_the_text_schema_is_closed() -> None:
    leaves = {"text", "number", "dtype"}
    reached = {"SavedModel"}
    for fields in SCHEMA.values():
        numbers = [number for name, (number, _) in fields.items() if not name.startswith("[")]
        assert len(numbers) == len(set(numbers))
        reached |= {kind for _, kind in fields.values()} - leaves
    assert reached == set(SCHEMA)

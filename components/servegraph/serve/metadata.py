"""Status and metadata of a model as TF Serving's REST API prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servegraph.savedmodel.graph import Signature, TensorInfo
from servegraph.serve.served import LoadedVersion
from servegraph.serve.signatures import Signatures

# DataType in tensorflow/core/framework/types.proto: the names that do not follow from ours by upper case.
_PROTO_NAMES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}


def status_json(versions: Mapping[int, LoadedVersion]) -> dict[str, Any]:
    """Return GetModelStatusResponse as JSON, newest version first."""
    return {
        "model_version_status": [
            {
                "version": str(number),
                "state": version.state,
                "status": {
                    "error_code": "UNKNOWN" if version.error else "OK",
                    "error_message": version.error,
                },
            }
            for number, version in sorted(versions.items(), reverse=True)
        ]
    }


def metadata_json(name: str, number: int, signatures: Signatures) -> dict[str, Any]:
    """Return GetModelMetadataResponse as JSON."""
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(number)},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    signature_name: _signature(signature) for signature_name, signature in sorted(signatures.items())
                }
            }
        },
    }


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {name: _tensor(info) for name, info in sorted(signature.inputs.items())},
        "outputs": {name: _tensor(info) for name, info in sorted(signature.outputs.items())},
        "method_name": signature.method_name,
    }


def _tensor(info: TensorInfo) -> dict[str, Any]:
    return {
        "dtype": f"DT_{_PROTO_NAMES.get(info.dtype, info.dtype.upper())}",
        "tensor_shape": {
            "dim": [{"size": str(-1 if size is None else size), "name": ""} for size in info.shape or ()],
            "unknown_rank": info.shape is None,
        },
        "name": info.tensors[0] if info.tensors else "",
    }

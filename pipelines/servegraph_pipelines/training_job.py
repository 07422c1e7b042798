"""Training alone, on several machines: the component `train` as a CustomJob of Vertex AI or a TFJob of Kubeflow.

Each worker runs the container of the compiled component with the same executor input, as a pipeline would; both
services set TF_CONFIG, by which the component chooses its strategy and its chief. Kubeflow's newer TrainJob has no
runtime that sets TF_CONFIG. Source of the input: KFP's executor (`kfp.dsl.executor`); of the pools:
https://cloud.google.com/vertex-ai/docs/training/distributed-training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import servegraph
from servegraph import _image
from servegraph.deploy_version.machine_check import OTHER_FAMILIES
from servegraph.errors import InputError
from servegraph.estimator import estimator_function
from servegraph.machines import catalog
from servegraph.suggestion import did_you_mean
from servegraph.train.request import require_path
from servegraph_pipelines import parameters as checked
from servegraph_pipelines.engines.runs import RunOptions, check_names
from servegraph_pipelines.images import ImageChoice
from servegraph_pipelines.resources import StepResources
from servegraph_pipelines.specification import Specification

COMPONENT = Path(servegraph.__file__).parent / "train/component.yaml"
STEP = "train"
VOLUME = "output"
_MACHINE_TYPE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")  # as n1-standard-8, a2-highgpu-1g, cloud-tpu
# The operator makes a service for each worker, NAME-worker-NUMBER, whose name is a DNS label (RFC 1035).
_DNS_LABEL, _LONGEST_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?"), 63


@dataclass(frozen=True)
class TrainingJob:
    """A training on `workers` machines of one kind; artifacts go below `output`.

    On Vertex AI `output` is gs://…; on Kubeflow a path on the volume of `volume_claim`, which all workers mount.
    """

    name: str
    parameters: Mapping[str, Any]
    output: str
    workers: int = 1
    machine_type: str = "n1-standard-8"  # vertex
    resources: StepResources = field(default_factory=StepResources)
    images: ImageChoice = field(default_factory=ImageChoice)
    options: RunOptions = field(default_factory=RunOptions)
    volume_claim: str | None = None  # kfp

    def __post_init__(self) -> None:
        """Check counts and parameters.

        Raises:
            InputError: fewer than one worker, or several for an Estimator (code `BAD_WORKERS`), a parameter that
                `train` does not take, or checkpoints on a URI (`BAD_CHECKPOINT_DIR`).
        """
        if self.workers < 1:
            raise InputError(f"There cannot be {self.workers} workers.", code="BAD_WORKERS", fix="Give at least 1.")
        checked.check(component(), self.parameters)
        require_path(self.parameters.get("checkpoint_dir", ""))
        if self.workers > 1 and _is_estimator(self):
            raise InputError("An Estimator is trained on one machine.", code="BAD_WORKERS", fix="Give --workers 1.")


def component() -> Specification:
    """Return the compiled component `train`."""
    return Specification(yaml.safe_load(COMPONENT.read_text(encoding="utf-8")))


def custom_job(job: TrainingJob) -> dict[str, Any]:
    """Return the body of `customJobs.create`: one chief, and a pool with the other workers.

    Raises:
        InputError: the output is not on Cloud Storage (code `BAD_OUTPUT`), resources that Vertex AI does not have, or
            a name that is not formed as it wants it (`BAD_RESOURCE_NAME`, of a machine `BAD_MACHINE_TYPE`).
    """
    check_names(job.options)
    if not _MACHINE_TYPE.fullmatch(job.machine_type):
        raise InputError(
            f"{job.machine_type!r} is not formed as a machine type is.",
            code="BAD_MACHINE_TYPE",
            fix="Give one like n1-standard-8.",
        )
    if not job.output.startswith("gs://"):
        raise InputError(f"{job.output!r} is not on Cloud Storage.", code="BAD_OUTPUT", fix="Give gs://bucket/prefix.")
    if job.resources.cpu or job.resources.memory:
        fix = "Give --machine-type, and an accelerator."
        raise InputError("A custom job has machines, not CPUs and memory.", code="BAD_RESOURCES", fix=fix)
    job.resources.to_ir("vertex")  # checks the accelerator
    machine: dict[str, Any] = {"machineType": job.machine_type}
    if job.resources.accelerator:
        machine |= {
            "acceleratorType": job.resources.accelerator,
            "acceleratorCount": job.resources.accelerator_count,
        }
    container = _container(job, mounted=job.output.replace("gs://", "/gcs/", 1))
    spec = {"imageUri": container["image"], "command": container["command"], "args": container["args"]}
    pools = [
        {"machineSpec": machine, "replicaCount": str(count), "containerSpec": spec}
        for count in (1, job.workers - 1)
        if count
    ]
    body: dict[str, Any] = {"displayName": job.name, "jobSpec": {"workerPoolSpecs": pools}}
    if job.options.labels:
        body["labels"] = dict(job.options.labels)
    if job.options.service_account:
        body["jobSpec"]["serviceAccount"] = job.options.service_account
    if job.options.network:
        body["jobSpec"]["network"] = job.options.network
    if job.options.encryption_key:
        body["encryptionSpec"] = {"kmsKeyName": job.options.encryption_key}
    return body


def machine_doubt(machine_type: str) -> str | None:
    """Return what speaks against a machine of Vertex AI, None where the catalogue has it.

    It is no more than a doubt: the catalogue is of machines for predictions, and there are new ones.
    """
    known = [machine.name for machine in catalog.load().platforms["vertex"].machine_types]
    if machine_type in known:
        return None
    is_of_others = machine_type.split("-")[0] in OTHER_FAMILIES["vertex"]
    meant = "" if is_of_others else did_you_mean(machine_type, known)
    return f"{machine_type} is not in the catalogue, so nothing about it could be checked. {meant}".rstrip()


def tf_job(job: TrainingJob) -> dict[str, Any]:
    """Return the TFJob (kubeflow.org/v1): one chief, and the other workers.

    Raises:
        InputError: no volume for the output (code `BAD_OUTPUT`), no name of a cluster's (`BAD_RUN_NAME`), or an option
            that a cluster has no use for.
    """
    if not _DNS_LABEL.fullmatch(job.name) or len(f"{job.name}-worker-{job.workers}") > _LONGEST_LABEL:
        fix = "Write a lower-case letter, then letters, digits and -, about 50 characters at most."
        raise InputError(f"{job.name!r} is no name of a TFJob.", code="BAD_RUN_NAME", fix=fix)
    if not job.volume_claim or not job.output.startswith("/"):
        fix = "Give --volume-claim, and --output as a path below its mount, /mnt/output."
        raise InputError("The workers need a volume for the output.", code="BAD_OUTPUT", fix=fix)
    for name in ("network", "encryption_key"):
        if getattr(job.options, name):
            option = name.replace("_", "-")
            raise InputError(f"A TFJob has no {option}.", code="NOT_FOR_ENGINE", fix="Leave it out.")
    container = {**_container(job, mounted=job.output), "name": "tensorflow"}  # the name that the operator looks for
    limits = _limits(job.resources)
    if limits:
        container["resources"] = {"limits": limits}
    container["volumeMounts"] = [{"name": VOLUME, "mountPath": "/mnt/output"}]
    claim = {"name": VOLUME, "persistentVolumeClaim": {"claimName": job.volume_claim}}
    pod: dict[str, Any] = {"containers": [container], "volumes": [claim], "restartPolicy": "OnFailure"}
    if job.options.service_account:
        pod["serviceAccountName"] = job.options.service_account
    template = {"metadata": {"labels": dict(job.options.labels)}, "spec": pod}
    counts = {"Chief": 1, "Worker": job.workers - 1}
    replicas = {
        kind: {"replicas": count, "restartPolicy": "OnFailure", "template": template}
        for kind, count in counts.items()
        if count
    }
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "TFJob",
        "metadata": {"name": job.name, "labels": dict(job.options.labels)},
        "spec": {"runPolicy": {"cleanPodPolicy": "None"}, "tfReplicaSpecs": replicas},
    }


def _container(job: TrainingJob, mounted: str) -> dict[str, Any]:
    """Return image, command and arguments of a worker; `mounted` is where it finds the output as files."""
    document = component().document
    definition = document["components"]["comp-train"]
    container = document["deploymentSpec"]["executors"][definition["executorLabel"]]["container"]
    root = job.output.rstrip("/")
    artifacts = {
        name: {"artifacts": [{"name": name, "type": row["artifactType"], "uri": f"{root}/{name}", "metadata": {}}]}
        for name, row in definition["outputDefinitions"]["artifacts"].items()
    }
    values = {name: _default(row) for name, row in definition["inputDefinitions"]["parameters"].items()}
    executor_input = {
        "inputs": {"parameterValues": {**values, **job.parameters}, "artifacts": {}, "parameters": {}},
        "outputs": {
            "artifacts": artifacts,
            "parameters": {},
            "outputFile": f"{mounted.rstrip('/')}/executor_output.json",
        },
    }
    arguments = [text.replace("{{$}}", json.dumps(executor_input)) for text in container["args"]]
    image = _image.ESTIMATOR if _is_estimator(job) else container["image"]
    return {"image": job.images.of(image), "command": list(container["command"]), "args": arguments}


def _is_estimator(job: TrainingJob) -> bool:
    return estimator_function(str(job.parameters.get("trainer", ""))) is not None


def _default(row: Mapping[str, Any]) -> Any:
    """Return the default of a parameter; whole numbers are floats in the compiled component."""
    return int(row["defaultValue"]) if row["parameterType"] == "NUMBER_INTEGER" else row["defaultValue"]


def _limits(resources: StepResources) -> dict[str, str]:
    resources.to_ir("kfp")  # checks them
    limits = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.accelerator:
        limits[resources.accelerator] = str(resources.accelerator_count)
    return {name: value for name, value in limits.items() if value}

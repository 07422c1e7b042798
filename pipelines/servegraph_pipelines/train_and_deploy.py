"""The main flow: from training data to a right-sized serving version."""

from kfp import dsl

from servegraph.components import (
    choose_machine,
    deploy_version,
    digest_data,
    export_serving_graph,
    inspect_graph,
    measure,
    optimize,
    train,
)


@dsl.pipeline(name="train-and-deploy")
def train_and_deploy(
    model_name: str = "census",
    data: str = "census",
    eval_data: str = "",
    schema: str = "",
    label: str = "",
    trainer: str = "servegraph.train.wide_and_deep:train",
    hyperparameters: dict = {},  # KFP copies it
    seed: int = 1,
    gpu_graph: str = "",
    budget: str = "",
    min_agreement: float = 0.99,
    platform: str = "vertex",
    accelerator: str = "auto",
    latency_goal_ms: float = 0.0,
    target_rate: float = 0.0,
    serving_cpus: int = 0,
    serving_memory: str = "",
    granted_model_bytes: int = 0,
    target: str = "local",
    location: str = "",
    project: str = "",
    region: str = "",
    staging: str = "",
    namespace: str = "",
    serving: dict = {},
    traffic_percent: int = 100,
    traffic_steps: list = [],
    allow_signature_change: bool = False,
):
    """Train a model, export its serving graph, shrink it, measure it, pick its machine and deploy it as a version.

    Args:
        model_name: Name of the deployed model.
        data: Training data: "census", or CSV or TFRecord files as a path, a glob or gs://.
        eval_data: Evaluation data; empty holds a fixed fifth of the data out.
        schema: Schema file; empty infers one from the data.
        label: Label column for an inferred schema; empty takes the last column.
        trainer: module:function or a .py file that takes TrainArgs and returns a Keras model; for Estimators see train.
        hyperparameters: What the trainer may set.
        seed: Seed of weights, shuffling and dropout.
        gpu_graph: Precision of a MetaGraph for GPUs beside the other: float32, bfloat16 or float16; empty for none.
        budget: Size the model must fit, like 500MB; empty shrinks without loss only.
        min_agreement: Share of held-out records that must get the same answer after shrinking.
        platform: Whose machines to choose from: vertex, ai-platform, kserve or local.
        accelerator: auto, none or a GPU type.
        latency_goal_ms: Goal for one request; with a measured latency above it, auto takes a GPU.
        target_rate: Requests a second to be served, for the number of replicas in the decision; 0 for none.
        serving_cpus: CPUs under which the model is measured; 0 takes those of the step.
        serving_memory: Memory under which it is measured, like 7.5GB; empty sets no limit.
        granted_model_bytes: Model size quota granted on ai-platform; 0 for the default limits.
        target: Where to deploy: local, vertex, ai-platform or kserve.
        location: Directory of the local target's versions.
        project: Google Cloud project of vertex and ai-platform.
        region: Region of vertex and ai-platform.
        staging: Place for model files as gs://bucket/prefix, for all targets but local.
        namespace: Kubernetes namespace of kserve.
        serving: How a service runs the version, like min_replicas, image or service_account.
        traffic_percent: Share of the traffic that the version has in the end; 0 is none.
        traffic_steps: Rising shares that it goes through before, like [10, 50].
        allow_signature_change: Deploy even if inputs or outputs differ from the version now live.
    """
    content = digest_data(data=data, eval_data=eval_data, schema=schema, trainer=trainer)
    content.set_caching_options(enable_caching=False)  # the data behind the same name may be other data
    trained = train(
        data=data,
        eval_data=eval_data,
        schema=schema,
        label=label,
        trainer=trainer,
        hyperparameters=hyperparameters,
        seed=seed,
        data_digest=content.outputs["content_digest"],  # the digests are for caches, whose keys are then of the content
    )
    exported = export_serving_graph(
        trained=trained.outputs["model"],
        samples=trained.outputs["samples"],
        gpu_graph=gpu_graph,
        trained_digest=trained.outputs["model_digest"],
        samples_digest=trained.outputs["samples_digest"],
    )
    slim = optimize(
        model=exported.outputs["model"],
        samples=trained.outputs["samples"],
        budget=budget,
        min_agreement=min_agreement,
        model_digest=exported.outputs["model_digest"],
        samples_digest=trained.outputs["samples_digest"],
        model_name=model_name,
    )
    inspected = inspect_graph(model=slim.outputs["optimized"], model_digest=slim.outputs["optimized_digest"])
    measured = measure(
        model=slim.outputs["optimized"],
        samples=trained.outputs["samples"],
        cpus=serving_cpus,
        memory=serving_memory,
        seconds=1.0,
        tune=False,
    )
    measured.set_caching_options(enable_caching=False)  # what was measured holds for the machine it ran on
    chosen = choose_machine(
        model_bytes=inspected.outputs["size_bytes"],
        tag_sets=inspected.outputs["tag_sets"],
        platform=platform,
        accelerator=accelerator,
        latency_goal_ms=latency_goal_ms,
        memory_bytes=measured.outputs["memory_bytes"],
        measured_latency_ms=measured.outputs["latency_ms"],
        measured_rate=measured.outputs["requests_per_second"],
        measured_cpus=measured.outputs["cpus"],
        target_rate=target_rate,
        granted_model_bytes=granted_model_bytes,
    )
    chosen.set_caching_options(enable_caching=False)  # machines end: the decision depends on the day
    deployed = deploy_version(
        model=slim.outputs["optimized"],
        name=model_name,
        target=target,
        location=location,
        project=project,
        region=region,
        staging=staging,
        namespace=namespace,
        serving=serving,
        traffic_percent=traffic_percent,
        traffic_steps=traffic_steps,
        fallbacks=chosen.outputs["fallbacks"],
        resources=chosen.outputs["resources"],
        machine_type=chosen.outputs["machine_type"],
        accelerator_type=chosen.outputs["accelerator_type"],
        accelerator_count=chosen.outputs["accelerator_count"],
        allow_signature_change=allow_signature_change,
    )
    deployed.set_caching_options(enable_caching=False)  # deploying is idempotent, a cached answer may be stale

"""What a schedule runs: train on the newest data, and deploy only what is better than the version now live."""

from kfp import dsl

from servegraph.components import (
    check_data,
    choose_machine,
    deploy_version,
    evaluate,
    export_serving_graph,
    inspect_graph,
    live_version,
    measure,
    optimize,
    record_training,
    train,
)


@dsl.pipeline(name="retrain")
def retrain(
    history: str,
    model_name: str = "census",
    data: str = "census",
    eval_data: str = "",
    schema: str = "",
    label: str = "",
    trainer: str = "servegraph.train.wide_and_deep:train",
    hyperparameters: dict = {},  # KFP copies it
    seed: int = 1,
    warm_start: bool = False,
    force: bool = False,
    gpu_graph: str = "",
    budget: str = "",
    min_agreement: float = 0.99,
    min_metric: str = "",
    max_metric_drop: float = 0.0,
    max_size_growth: float = 0.0,
    max_latency_ms: float = 0.0,
    max_latency_growth: float = 0.0,
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
    api_url: str = "",
):
    """Train if data or settings have changed, and deploy if the optimized model is blessed against the live version.

    Args:
        history: Directory, a path or gs://, that remembers what was trained last.
        model_name: Name of the deployed model.
        data: Training data: "census", or CSV or TFRecord files as a path, a glob or gs://; read anew in every run.
        eval_data: Evaluation data; empty holds a fixed fifth of the data out.
        schema: Schema file; empty infers one from the data.
        label: Label column for an inferred schema; empty takes the last column.
        trainer: module:function or a .py file that takes TrainArgs and returns a Keras model.
        hyperparameters: What the trainer may set.
        seed: Seed of weights, shuffling and dropout.
        warm_start: Start from the weights of the model that was deployed last.
        force: Train even if nothing has changed.
        gpu_graph: Precision of a MetaGraph for GPUs beside the other: float32, bfloat16 or float16; empty for none.
        budget: Size the model must fit, like 500MB; empty shrinks without loss only.
        min_agreement: Share of held-out records that must get the same answer after shrinking.
        min_metric: The least accuracy, or the largest mean absolute error; empty sets none.
        max_metric_drop: Accuracy that may be lost against the live version, or the part by which the error may grow.
        max_size_growth: How many times the size of the live version it may be; 0 sets no limit.
        max_latency_ms: The longest median of one record, of a server under the limits below; 0 sets none.
        max_latency_growth: How many times the time of a call of the live version it may take; 0 sets no limit.
        platform: Whose machines to choose from: vertex, ai-platform, kserve or local.
        accelerator: auto, none or a GPU type.
        latency_goal_ms: Goal for one request; with the measured latency above it, auto takes a GPU.
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
        api_url: Another address of the target's service.
    """
    live = live_version(
        name=model_name,
        target=target,
        location=location,
        project=project,
        region=region,
        staging=staging,
        namespace=namespace,
        api_url=api_url,
    )
    live.set_caching_options(enable_caching=False)
    checked = check_data(
        model_name=model_name,
        history=history,
        data=data,
        eval_data=eval_data,
        schema=schema,
        label=label,
        trainer=trainer,
        hyperparameters=hyperparameters,
        seed=seed,
        gpu_graph=gpu_graph,
        budget=budget,
        min_agreement=min_agreement,
        min_metric=min_metric,
        max_metric_drop=max_metric_drop,
        max_size_growth=max_size_growth,
        max_latency_ms=max_latency_ms,
        max_latency_growth=max_latency_growth,
        platform=platform,
        accelerator=accelerator,
        latency_goal_ms=latency_goal_ms,
        serving_cpus=serving_cpus,
        serving_memory=serving_memory,
        granted_model_bytes=granted_model_bytes,
        serving=serving,
        traffic_percent=traffic_percent,
        traffic_steps=traffic_steps,
        allow_signature_change=allow_signature_change,
        live_version=live.outputs["version"],
        warm_start=warm_start,
        force=force,
    )
    checked.set_caching_options(enable_caching=False)
    with dsl.If(checked.outputs["decision"] == "train", name="something-new"):
        trained = train(
            data=data,
            eval_data=eval_data,
            schema=schema,
            label=label,
            trainer=trainer,
            hyperparameters=hyperparameters,
            seed=seed,
            warm_start=checked.outputs["warm_start"],
            data_digest=checked.outputs[
                "content_digest"
            ],  # the digests are for caches, whose keys are then of the content
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
        measured = measure(
            model=slim.outputs["optimized"],
            samples=trained.outputs["samples"],
            cpus=serving_cpus,
            memory=serving_memory,
            seconds=1.0,
            tune=False,
        )
        measured.set_caching_options(enable_caching=False)  # what was measured holds for the machine it ran on
        evaluated = evaluate(
            model=slim.outputs["optimized"],
            samples=trained.outputs["samples"],
            live=live.outputs["uri"],
            min_metric=min_metric,
            max_metric_drop=max_metric_drop,
            max_size_growth=max_size_growth,
            max_latency_ms=max_latency_ms,
            max_latency_growth=max_latency_growth,
            measured_latency_ms=measured.outputs["latency_ms"],
            allow_incomparable=allow_signature_change,
        )
        evaluated.set_caching_options(enable_caching=False)  # what is live changes
        inspected = inspect_graph(model=slim.outputs["optimized"], model_digest=slim.outputs["optimized_digest"])
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
        with dsl.If(evaluated.outputs["verdict"] == "blessed", name="blessed"):
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
                api_url=api_url,
            )
            deployed.set_caching_options(enable_caching=False)
            kept = record_training(
                trained=trained.outputs["model"],
                model_name=model_name,
                history=history,
                data_digest=checked.outputs["data_digest"],
                settings_digest=checked.outputs["settings_digest"],
                deployed=True,
            )
            kept.after(deployed)  # a deploy that failed is tried again, with the training
            kept.set_caching_options(enable_caching=False)
        with dsl.Else(name="refused"):
            noted = record_training(
                trained=trained.outputs["model"],
                model_name=model_name,
                history=history,
                data_digest=checked.outputs["data_digest"],
                settings_digest=checked.outputs["settings_digest"],
                deployed=False,
            )
            noted.set_caching_options(enable_caching=False)

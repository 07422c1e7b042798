"""The component: says inside a pipeline what the data of a training holds."""

from typing import NamedTuple

from kfp import dsl

from servegraph import _image


@dsl.component(base_image=_image.SLIM, install_kfp_package=False)  # type: ignore[untyped-decorator]
def digest_data(
    data: str,
    eval_data: str = "",
    schema: str = "",
    trainer: str = "",
) -> NamedTuple("Digested", [("content_digest", str)]):  # type: ignore[valid-type]
    """Take the digest of the data's content, so that the cache of an engine keys a training by more than a name.

    Args:
        data: Training data: "census", or CSV or TFRecord files as a path, a glob or gs://.
        eval_data: Evaluation data, or empty.
        schema: Schema file, or empty.
        trainer: Trainer, as `train` takes it.

    Returns:
        content_digest: SHA-256 over the content of all files; never the same again where the training is not to be
            cached: what a trainer of your own reads is not known, nor data that this step cannot read.
    """
    from collections import namedtuple

    from servegraph.digest_data.digest import training_digest

    digest, why_not = training_digest([data, eval_data, schema], trainer)
    if why_not:
        print(f"The training is not cached: {why_not}")
    Digested = namedtuple("Digested", ["content_digest"])
    return Digested(digest)

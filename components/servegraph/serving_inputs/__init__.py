"""How a request reaches a model's features, from a schema: JSON features, rows of CSV, serialized tf.Examples.

In a script of your own that trains an Estimator:

    from servegraph.serving_inputs.receivers import serving_input_fn
    estimator.export_saved_model("export", serving_input_fn("schema.yaml", formats=["json"]))

The modules here run under TensorFlow 2.15 as well as 2.21.
"""

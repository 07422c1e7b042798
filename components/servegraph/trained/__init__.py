"""What a training run leaves behind and an export reads: the Keras model, its schema, its checkpoints."""

MODEL_FILE = "model.keras"
SCHEMA_FILE = "schema.yaml"  # beside the model and beside the checkpoints: neither needs the data again
IDENTITY_FILE = "identity.json"  # beside checkpoints: which training they are of

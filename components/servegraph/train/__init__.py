"""Train a Keras model by a written contract; see `contract.TrainArgs`."""

"""Write a serving SavedModel from a Keras model and prove what was written."""

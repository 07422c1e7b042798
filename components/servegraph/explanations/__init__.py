"""Explanations of predictions (R12): where they are possible and until when, and the metadata that they need."""

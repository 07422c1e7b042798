"""What one retraining leaves for the next."""

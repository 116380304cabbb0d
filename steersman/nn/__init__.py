"""What a model is made of; no task."""

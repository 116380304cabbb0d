"""People counted in every frame."""

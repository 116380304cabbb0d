"""Steering from a camera."""

"""Glucose half an hour and an hour ahead."""

"""Sounds: which class each recording is of, such as the word that is spoken."""

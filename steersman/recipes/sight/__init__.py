"""Texts said about pictures and films: answers, captions, what happens."""

"""Keeping up a pendulum whose velocity is hidden."""

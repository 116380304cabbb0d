"""Simulators a model drives in, closed loop: Gymnasium environments, each with its own expert."""

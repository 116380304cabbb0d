"""Simulators a model acts in, closed loop, each with its own expert where it has one."""

from .car_racing import CarRacing
from .pendulum import SwingUp
from .world import World, WorldSpec

WORLDS: dict[str, type[WorldSpec]] = {spec.called: spec for spec in (CarRacing, SwingUp)}

__all__ = ["WORLDS", "CarRacing", "SwingUp", "World", "WorldSpec"]

"""The scripted driver of CarRacing: a line that cuts the bends, a speed profile along it, pure pursuit.

All is reckoned from the piece of the centre line that the picture shows, 7 m behind the car to 35 m ahead of it,
so that a driver with a camera can learn it. Its figures were found by CMA-ES (Hansen 2016) on tracks 100000 to
100299 with noise on the steering.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

TILE_M = 3.5
BEHIND, AHEAD = 1, 8
"""Tiles behind and ahead of the car's own at which the picture shows how the road bends."""
BELL_TILES = 5
PACE_MPS = 20.0
"""Speed missing per unit of `pace`."""
WHEELBASE_M = 3.24


class Course:
    """The centre line of a closed track: points in driving order, one a tile."""

    def __init__(self, points_m: np.ndarray):
        self.points_m = points_m
        step = np.roll(points_m, -1, 0) - points_m
        self.forward = unit(step)
        heading = np.arctan2(step[:, 1], step[:, 0])
        self.curvature = wrap(heading - np.roll(heading, 1)) / TILE_M
        """Curvature in 1/m, positive to the left."""
        along = unit(np.roll(points_m, -1, 0) - np.roll(points_m, 1, 0))
        self.left = np.stack([-along[:, 1], along[:, 0]], 1)

    def seen(self) -> np.ndarray:
        """The tiles in sight from each tile, (tile, ahead)."""
        num_tiles = len(self.points_m)
        return (np.arange(num_tiles)[:, None] + np.arange(-BEHIND, AHEAD + 1)) % num_tiles

    def locate(self, position_m: np.ndarray, near_tile: int) -> "Place":
        """The nearest tile, looked for around `near_tile`."""
        tiles = (near_tile + np.arange(-15, 16)) % len(self.points_m)
        gap = position_m - self.points_m[tiles]
        nearest = np.argmin((gap * gap).sum(1))
        (dx, dy), (ux, uy) = gap[nearest].tolist(), self.forward[tiles[nearest]].tolist()
        return Place(int(tiles[nearest]), (ux * dx + uy * dy) / TILE_M, ux * dy - uy * dx)


@dataclass(frozen=True)
class Place:
    """The nearest tile, how far past its point in tiles, how far left of the centre line in metres."""

    tile: int
    past: float
    offset_m: float


class Car(Protocol):
    """What the expert asks of the world."""

    course: Course
    place: Place

    @property
    def position_m(self) -> np.ndarray: ...
    @property
    def heading_rad(self) -> float: ...
    @property
    def speed_mps(self) -> float: ...
    @property
    def yaw_radps(self) -> float: ...
    @property
    def blind(self) -> bool: ...
    @property
    def friction(self) -> float: ...


@dataclass(frozen=True)
class RacingLine:
    """The centre line moved sideways by the curvature around: inward by a narrow bell of it, outward by a wide one."""

    inward_m2: float = 53.7
    inward_reach_m: float = 4.57
    outward_m2: float = 6.98
    outward_reach_m: float = 24.5
    most_m: float = 3.3
    blur_tiles: float = 1.54

    def points_m(self, course: Course) -> np.ndarray:
        """The line in sight of each tile, (tile, ahead, 2), as if the road ran straight where it is out of sight."""
        seen = course.seen()
        unseen = np.zeros((len(seen), BELL_TILES))
        curvature = np.concatenate([unseen, course.curvature[seen], unseen], 1)
        windows = np.lib.stride_tricks.sliding_window_view(curvature, 2 * BELL_TILES + 1, axis=1)
        bells = self.inward_m2 * bell(self.inward_reach_m) - self.outward_m2 * bell(self.outward_reach_m)
        offset_m = self.most_m * np.tanh(windows @ bells / self.most_m)
        return course.points_m[seen] + course.left[seen] * offset_m[..., None]

    def curvature(self, step: np.ndarray, length: np.ndarray) -> np.ndarray:
        """The curvature of the line whose steps these are, in 1/m, blurred from tile to tile."""
        turn = wrap(np.diff(np.arctan2(step[..., 1], step[..., 0]), axis=1))
        sharp = np.pad(2 * turn / (length[:, 1:] + length[:, :-1]), ((0, 0), (1, 1)), mode="edge")
        weights = np.exp(-0.5 * (np.arange(-1, 2) / self.blur_tiles) ** 2)
        return np.lib.stride_tricks.sliding_window_view(sharp, 3, axis=1) @ (weights / weights.sum())


@dataclass(frozen=True)
class SpeedProfile:
    """The highest speed from which every bend in sight can still be braked for."""

    lateral_mps2: float = 167.0
    braking_mps2: float = 64.8
    top_mps: float = 129.5

    def on(self, friction: float) -> "SpeedProfile":
        """The profile on a road of so much of the stock friction."""
        return replace(self, lateral_mps2=friction * self.lateral_mps2, braking_mps2=friction * self.braking_mps2)

    def speed_mps(self, curvature: np.ndarray, distance_m: np.ndarray) -> np.ndarray:
        """The speed at each tile, from what lies ahead of it, (tile, ahead)."""
        bend = np.maximum(np.abs(curvature), 1e-4)
        squares = self.lateral_mps2 / bend + 2 * self.braking_mps2 * distance_m
        return np.minimum(np.sqrt(squares.min(1)), self.top_mps)


@dataclass(frozen=True)
class Pursuit:
    """Steers for a point on the line ahead, with the line's own curvature, against the yaw that is too much."""

    lookahead_m: float = 10.5
    lookahead_s: float = 0.074
    angle_gain: float = 0.93
    curvature_gain: float = 0.79
    yaw_gain_s: float = 0.015

    def lookahead_tiles(self, speed_mps: float) -> float:
        return min((self.lookahead_m + self.lookahead_s * speed_mps) / TILE_M, AHEAD - 2.1)

    def steer(self, angle_rad: float, curvature: float, speed_mps: float, yaw_radps: float) -> float:
        """Radians at the front wheels, which is also the fraction of the action; the wheels turn 0.4 at most."""
        turn = self.angle_gain * angle_rad + self.curvature_gain * WHEELBASE_M * curvature
        return min(max(turn - self.yaw_gain_s * (yaw_radps - speed_mps * curvature), -1.0), 1.0)


@dataclass(frozen=True)
class Traction:
    """How much pace the rear wheels take without spinning: less when slow, and in a bend, where they hold sideways."""

    standing: float = 0.167
    per_mps: float = 0.0266
    lateral_mps2: float = 205.0

    def on(self, friction: float) -> "Traction":
        """The same on a road of so much of the stock friction."""
        scaled = (friction * x for x in (self.standing, self.per_mps, self.lateral_mps2))
        return Traction(*scaled)

    def pace(self, speed_mps: float, yaw_radps: float) -> float:
        grip = max(0.0, 1 - (speed_mps * yaw_radps / self.lateral_mps2) ** 2)
        return (self.standing + self.per_mps * speed_mps) * math.sqrt(grip)


@dataclass(frozen=True)
class Recovery:
    """Goes gently when off the road or turned from the goal, where gas would only spin the car on."""

    astray_m: float = 7.0
    astray_mps: float = 40.0
    turned_rad: float = 0.8
    turned_mps: float = 10.0
    turned_pace: float = 0.08

    def slow(self, target_mps: float, traction: float, offset_m: float, angle_rad: float) -> tuple[float, float]:
        """Target speed and pace at most: both fall with the angle beyond `turned_rad`."""
        if abs(offset_m) > self.astray_m:
            target_mps = min(target_mps, self.astray_mps)
        ease = 1 / min(max(abs(angle_rad) - self.turned_rad, 1e-3), 1.0)
        return min(target_mps, self.turned_mps * ease), min(traction, self.turned_pace * ease)


@dataclass(frozen=True)
class Expert:
    """Labels any state of the world: a pure function of what is around the car now."""

    blind_speed_mps: float | None = 40.0
    """Target speed while the picture is black: what a careful driver does; None drives on as if it were not."""
    line: RacingLine = RacingLine()
    profile: SpeedProfile = SpeedProfile()
    pursuit: Pursuit = Pursuit()
    traction: Traction = Traction()
    recovery: Recovery = Recovery()

    def act(self, world: Car) -> dict[str, float]:
        """`steer`, left +; `pace`, the speed missing in units of 20 m/s; `gas` and `brake` that follow from it."""
        grip = world.friction
        plan = plan_course(world.course, self.line, self.profile.on(grip))
        speed, yaw, place = world.speed_mps, world.yaw_radps, world.place
        angle = self._goal_rad(world, plan)
        target, most = plan.at(plan.speed_mps, place, 0), self.traction.on(grip).pace(speed, yaw)
        target, most = self.recovery.slow(target, most, place.offset_m, angle)
        if world.blind and self.blind_speed_mps is not None:
            target = min(target, self.blind_speed_mps)
        pace = min(max((target - speed) / PACE_MPS, -1.5), 1.5, most)
        gas, brake = pedals(pace)
        return {
            "steer": self.pursuit.steer(angle, plan.at(plan.curvature, place, 0), speed, yaw),
            "pace": pace,
            "gas": gas,
            "brake": brake,
            "target_speed_mps": target,
            "speed_mps": speed,
            "yaw_radps": yaw,
        }

    def _goal_rad(self, world: Car, plan: "Plan") -> float:
        """The angle from the car's nose to the point it pursues, left +."""
        ahead = self.pursuit.lookahead_tiles(world.speed_mps)
        x, y = world.position_m.tolist()
        goal_x, goal_y = plan.at(plan.x_m, world.place, ahead), plan.at(plan.y_m, world.place, ahead)
        return wrap(math.atan2(goal_y - y, goal_x - x) - world.heading_rad)


class Plan:
    """Line and speed as they look from each tile of a course: rows of what lies ahead of it."""

    def __init__(self, course: Course, line: RacingLine, profile: SpeedProfile):
        points = line.points_m(course)
        step = np.diff(points, axis=1)
        length = np.hypot(step[..., 0], step[..., 1])
        curvature = line.curvature(step, length)
        distance = np.cumsum(length[:, 1:], 1) - length[:, 1:]
        self.x_m, self.y_m = points[:, BEHIND:, 0].tolist(), points[:, BEHIND:, 1].tolist()
        self.curvature = curvature.tolist()
        self.speed_mps = profile.speed_mps(curvature, distance)[:, None].tolist()

    def at(self, rows: list[list[float]], place: Place, ahead: float) -> float:
        """The value `ahead` tiles before the car, blended of what is seen from the tiles it is between."""
        tile, past = (place.tile, place.past) if place.past >= 0 else (place.tile - 1, place.past + 1)
        past = min(max(past, 0.0), 1.0)
        here, there = rows[tile], rows[(tile + 1) % len(rows)]
        return (1 - past) * between(here, ahead + past) + past * between(there, ahead + past - 1)


@functools.lru_cache(maxsize=4)
def plan_course(course: Course, line: RacingLine, profile: SpeedProfile) -> Plan:
    return Plan(course, line, profile)


def pedals(pace: float) -> tuple[float, float]:
    """Gas and brake in [0, 1] for the speed missing, in units of 20 m/s."""
    return min(max(pace, 0.0), 1.0), min(max(1.08 * (-pace - 0.11), 0.0), 0.47)


def pace_of(gas: float, brake: float) -> float:
    """The inverse of `pedals`, as far as there is one: of both the brake counts, and no more of it than they give."""
    return -min(brake, 0.47) / 1.08 - 0.11 if brake > 0 else gas


def between(row: list[float], index: float) -> float:
    """Linear interpolation, the ends held."""
    index = min(max(index, 0.0), len(row) - 1.0)
    low = min(int(index), len(row) - 2)
    return row[low] + (index - low) * (row[low + 1] - row[low])


def bell(reach_m: float) -> np.ndarray:
    """Weights of the tiles around one, of sum 1."""
    weights = np.exp(-0.5 * (np.arange(-BELL_TILES, BELL_TILES + 1) * TILE_M / reach_m) ** 2)
    return weights / weights.sum()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def wrap(angle_rad: Any) -> Any:
    """The angle wrapped into [-pi, pi)."""
    return (angle_rad + math.pi) % (2 * math.pi) - math.pi

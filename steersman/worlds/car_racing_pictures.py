"""The pictures of CarRacing-v3, pixel for pixel as Gymnasium paints them, without what the driver never sees.

Gymnasium moves and paints some 800 polygons one by one on 1000 x 800 pixels, turns them upside down, adds the
dashboard and shrinks the lot. Here NumPy moves all polygons at once, pygame paints the few that show, and the
picture is shrunk across before it is turned, when it is a tenth of the size.
"""

import math

import numpy as np
import pygame
from gymnasium.envs.box2d import car_dynamics
from gymnasium.envs.box2d import car_racing as stock
from pygame import gfxdraw

HEIGHT, WIDTH = 84, 96
CANVAS = (stock.WINDOW_W, stock.WINDOW_H)
HIDDEN = stock.WINDOW_H - HEIGHT * stock.WINDOW_H // stock.STATE_H
"""Canvas rows that end up under the dashboard: the first ones, as the canvas is upside down."""
WHEELS = 4


class Painter:
    """Paints the car on one track; the next track needs a new painter."""

    def __init__(self, simulator: stock.CarRacing):
        assert simulator.car is not None
        self.simulator = simulator
        self.canvas = pygame.Surface(CANVAS, depth=32)
        self.seen = self.canvas.subsurface((0, HIDDEN, stock.WINDOW_W, stock.WINDOW_H - HIDDEN))
        self.narrow = pygame.Surface((WIDTH, self.seen.get_height()), depth=32)
        self.upright = self.narrow.copy()
        self.small = pygame.Surface((WIDTH, HEIGHT), depth=32)
        self.background = [int(channel) for channel in simulator.bg_color]
        patches = grass_patches()
        self.corners_m = np.concatenate([patches, [poly for poly, _ in simulator.road_poly]])
        self.middles_m = self.corners_m.mean(1)
        self.colors = np.concatenate(
            [np.tile(simulator.grass_color, (len(patches), 1)), [color for _, color in simulator.road_poly]]
        ).astype(float)
        self._adopt_colors(self.colors[len(patches) :])
        self.car = CarShape(simulator.car)

    def _adopt_colors(self, colors: np.ndarray):
        """A wheel on a tile repaints the tile's colour in place: make that place a row of our table."""
        row_of = {id(color): row for row, (_, color) in enumerate(self.simulator.road_poly)}
        assert self.simulator.road is not None
        for tile in self.simulator.road:
            tile.color = colors[row_of[id(tile.color)]]
        polygons = [poly for poly, _ in self.simulator.road_poly]
        self.simulator.road_poly = list(zip(polygons, colors, strict=True))

    def paint(self) -> np.ndarray:
        """What the driver sees now, (84, 96, 3)."""
        view = View(self.simulator)
        self._paint_field(view)
        self._paint_polygons(view)
        self.car.paint(self.canvas, view)
        return self._shrink()

    def scene(self, height: int, width: int) -> np.ndarray:
        """The picture painted last, for people: larger, (height, width, 3)."""
        large = pygame.transform.smoothscale(self.seen, (width, height))
        return pygame.surfarray.pixels3d(large).swapaxes(0, 1)[::-1].copy()

    def _paint_field(self, view: "View"):
        """The plain ground, and black beyond its end."""
        inside = np.abs(view.centre_m).max() + view.reach_m < stock.PLAYFIELD
        # not Surface.fill(): it writes past the caches, and all that is painted after it waits for memory
        pygame.surfarray.pixels2d(self.seen)[:] = self.seen.map_rgb(self.background) if inside else 0
        if inside:
            return
        field_m = stock.PLAYFIELD * np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
        paint_polygon(self.canvas, view.pixels(field_m).tolist(), self.background)

    def _paint_polygons(self, view: "View"):
        away = self.middles_m - view.centre_m
        near = np.flatnonzero((away * away).sum(1) < (view.reach_m + stock.GRASS_DIM) ** 2)
        pixels = view.pixels(self.corners_m[near])
        low, high = pixels.min(1), pixels.max(1)  # a smooth edge spills one pixel over
        shown = ((high >= (-1, HIDDEN - 1)) & (low <= CANVAS)).all(1)
        colors = self.colors[near[shown]].astype(int).tolist()
        for corners, color in zip(pixels[shown].tolist(), colors, strict=True):
            paint_polygon(self.canvas, corners, color)

    def _shrink(self) -> np.ndarray:
        """Shrinks across, then turned, then down: smoothscale rounds in between, so the order matters."""
        pygame.transform.smoothscale(self.seen, self.narrow.get_size(), self.narrow)
        pygame.surfarray.pixels2d(self.upright)[:] = pygame.surfarray.pixels2d(self.narrow)[:, ::-1]
        pygame.transform.smoothscale(self.upright, self.small.get_size(), self.small)
        return pygame.surfarray.pixels3d(self.small).swapaxes(0, 1).copy()


class View:
    """The map from metres to pixels of the upside-down canvas, in the stock environment's own order of arithmetic."""

    def __init__(self, simulator: stock.CarRacing):
        assert simulator.car is not None
        hull, time_s = simulator.car.hull, simulator.t
        self.zoom = 0.1 * stock.SCALE * max(1 - time_s, 0) + stock.ZOOM * stock.SCALE * min(time_s, 1)
        self.cos, self.sin = pygame.Vector2(1, 0).rotate_rad(-hull.angle)
        x, y = hull.position
        scroll = pygame.Vector2(-x * self.zoom, -y * self.zoom).rotate_rad(-hull.angle)
        self.shift = stock.WINDOW_W / 2 + scroll.x, stock.WINDOW_H / 4 + scroll.y
        self.centre_m = np.array([x, y])
        self.reach_m = math.hypot(stock.WINDOW_W / 2, stock.WINDOW_H * 3 / 4) / self.zoom

    def pixels(self, points_m: np.ndarray) -> np.ndarray:
        """Whole pixels, cut off towards zero as pygame does."""
        x, y = points_m[..., 0], points_m[..., 1]
        pixels = np.empty(points_m.shape, int)
        pixels[..., 0] = (self.cos * x - self.sin * y) * self.zoom + self.shift[0]
        pixels[..., 1] = (self.sin * x + self.cos * y) * self.zoom + self.shift[1]
        return pixels


class CarShape:
    """The car's polygons: wheels, the white of their treads, hull."""

    def __init__(self, car: car_dynamics.Car):
        self.bodies = car.drawlist
        wheels = [wheel.fixtures[0].shape.vertices for wheel in car.wheels]
        treads = [[(0.0, 0.0)] * 4] * WHEELS
        hull = [fixture.shape.vertices for fixture in car.hull.fixtures]
        shapes = wheels + treads + hull
        bodies = [*range(WHEELS), *range(WHEELS)] + [WHEELS] * len(hull)
        self.corners_m = np.concatenate(shapes).astype(np.float32)
        self.body_of = np.repeat(bodies, [len(shape) for shape in shapes])
        ends = np.cumsum([len(shape) for shape in shapes])
        parts = [slice(end - len(shape), end) for end, shape in zip(ends, shapes, strict=True)]
        self.wheels, self.treads, self.hull = parts[:WHEELS], parts[WHEELS : 2 * WHEELS], parts[2 * WHEELS :]

    def paint(self, canvas: pygame.Surface, view: View):
        ends = [tread_ends(wheel.phase) for wheel in self.bodies[:WHEELS]]
        for tread, end in zip(self.treads, ends, strict=True):
            self.corners_m[tread] = tread_corners(*end) if end else 0
        pixels = view.pixels(self._corners_on_track_m()).tolist()
        for wheel, tread, end in zip(self.wheels, self.treads, ends, strict=True):
            pygame.draw.polygon(canvas, car_dynamics.WHEEL_COLOR, pixels[wheel])
            if end:
                pygame.draw.polygon(canvas, car_dynamics.WHEEL_WHITE, pixels[tread])
        for part in self.hull:
            pygame.draw.polygon(canvas, (204, 0, 0), pixels[part])

    def _corners_on_track_m(self) -> np.ndarray:
        """Corners in single precision, as Box2D reckons."""
        poses = [body.transform for body in self.bodies]
        rows = np.array([(*pose.position, pose.q.c, pose.q.s) for pose in poses], np.float32)
        (left, up, cos, sin), (x, y) = rows[self.body_of].T, self.corners_m.T
        return np.stack([(cos * x - sin * y) + left, (sin * x + cos * y) + up], 1).astype(float)


def tread_ends(phase_rad: float) -> tuple[float, float] | None:
    """How far forward the white of a turning wheel begins and ends, in wheel radii; None on its far side."""
    (sin1, cos1), (sin2, cos2) = ((math.sin(a), math.cos(a)) for a in (phase_rad, phase_rad + 1.2))
    if sin1 > 0 and sin2 > 0:
        return None
    return math.copysign(1, cos1) if sin1 > 0 else cos1, math.copysign(1, cos2) if sin2 > 0 else cos2


def tread_corners(first: float, last: float) -> list[tuple[float, float]]:
    side, radius, size = car_dynamics.WHEEL_W, car_dynamics.WHEEL_R, car_dynamics.SIZE
    corners = [(-side, radius * first), (side, radius * first), (side, radius * last), (-side, radius * last)]
    return [(x * size, y * size) for x, y in corners]


def grass_patches() -> np.ndarray:
    """Corners in metres of the lighter squares, (400, 4, 2)."""
    size, tiles = stock.GRASS_DIM, range(-20, 20, 2)
    corners = ((1, 0), (0, 0), (0, 1), (1, 1))
    squares = [(size * x, size * y) for x in tiles for y in tiles]
    return np.array([[(x + size * dx, y + size * dy) for dx, dy in corners] for x, y in squares])


def paint_polygon(canvas: pygame.Surface, corners: list, color: list[int]):
    gfxdraw.aapolygon(canvas, corners, color)
    gfxdraw.filled_polygon(canvas, corners, color)

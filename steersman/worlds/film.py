"""A drive as a film: the world, what the model sees of it, and its hands on the wheel beside the expert's."""

from collections.abc import Mapping
from contextlib import ExitStack
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import av
import matplotlib
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from PIL import Image, ImageDraw, ImageFont

from ..files import written_whole
from .world import FactValue, Info

BASE_WIDTH, BASE_HEIGHT = 960, 540
"""Pixels in which the layout is thought out; other widths scale it."""
FULL_LOCK_DEG = 135.0
"""How far a drawn wheel turns at full lock."""
FINE = 3
"""A wheel is drawn so many times as large and then shrunk, for smooth edges."""

PAPER, INK, MUTED, RULE = (18, 22, 27), (230, 234, 238), (150, 161, 172), (48, 56, 64)
MODEL, TRUTH, ALARM = (111, 177, 255), (234, 164, 63), (255, 110, 116)

WORLD = (20, 20, 600, 400)
SEEN = (648, 44, 288, 252)
READOUTS = (20, 446, 150)
WHEELS = (648, 316, 288, 112)
BARS = (648, 466, 288, 22)


class DriveVideo:
    """Writes an H.264 film that any browser plays, under a temporary name until it is whole.

    Used as a context manager; after an error nothing is left behind.
    """

    def __init__(
        self,
        path: Path,
        fps: float = 50,
        width: int = BASE_WIDTH,
        truth_name: str = "expert",
        dashboard: "Dashboard | None" = None,
    ):
        """Width and names are those of `dashboard` where one is given."""
        self.path = Path(path)
        self.dashboard = dashboard or Dashboard(width, truth_name)
        self.fps = Fraction(fps).limit_denominator(1000)
        self.reformatter = VideoReformatter()
        self.last: np.ndarray | None = None

    def __enter__(self) -> "DriveVideo":
        self._place = ExitStack()
        file = self._place.enter_context(written_whole(self.path))
        # By its name: to put the index in front, it is read again.
        self.film = av.open(file.name, "w", format="mp4", options={"movflags": "+faststart"})
        options = {"preset": "veryfast", "crf": "21"}
        self.stream = self.film.add_stream("libx264", rate=self.fps, options=options)
        self.stream.width, self.stream.height = self.dashboard.size
        self.stream.pix_fmt = "yuv420p"
        # Players guess the colours of untagged films, and guess differently.
        codec = self.stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = codec.color_range = 1
        return self

    def add(
        self,
        picture: np.ndarray,
        seen: np.ndarray,
        prediction: Mapping[str, float],
        truth: Mapping[str, float] | None,
        info: Info,
    ) -> None:
        """One step; see Dashboard.draw."""
        self.last = self.dashboard.draw(picture, seen, prediction, truth, info)
        frame = av.VideoFrame.from_ndarray(self.last, format="rgb24")
        yuv = self.reformatter.reformat(frame, format="yuv420p", dst_colorspace=Colorspace.ITU709)
        self.film.mux(self.stream.encode(yuv))

    def frame(self) -> np.ndarray:
        """The last step's picture (row, column, 3)."""
        assert self.last is not None, "nothing has been added yet"
        return self.last

    def still(self, path: Path) -> None:
        """The last step as a PNG."""
        Image.fromarray(self.frame()).save(path, "PNG", optimize=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._place:
            if error is None:
                self.film.mux(self.stream.encode(None))
            self.film.close()
            if error is not None:
                raise error


class Dashboard:
    """Draws single steps of a drive with a wheel and pedals; `size` is (width, height) in pixels, both even."""

    bars: Mapping[str, tuple[float, float]] = {"gas": (0.0, 1.0), "brake": (0.0, 1.0), "pace": (-1.5, 1.5)}
    """What is drawn as a bar where it is predicted, and its ends."""
    bars_box, label_width = BARS, 56

    def __init__(self, width: int = BASE_WIDTH, truth_name: str = "expert"):
        self.scale = width / BASE_WIDTH
        self.truth_name = truth_name
        self.size = (self._even(BASE_WIDTH), self._even(BASE_HEIGHT))
        self.small, self.large = _font("DejaVuSans.ttf", self._px(13)), _font("DejaVuSans.ttf", self._px(27))
        self.bold = _font("DejaVuSans-Bold.ttf", self._px(13))
        self.empty = Image.new("RGB", self.size, PAPER)
        x, y, _, _ = self._box(SEEN)
        ImageDraw.Draw(self.empty).text((x, y - self._px(22)), "what the model sees", MUTED, self.small)

    def draw(
        self,
        picture: np.ndarray,
        seen: np.ndarray,
        prediction: Mapping[str, float],
        truth: Mapping[str, float] | None,
        info: Info,
    ) -> np.ndarray:
        """A frame, uint8 (row, column, 3), of pictures that are uint8 (row, column, 3) of any size.

        `prediction` and `truth` hold `steer` (positive = left), and those of `bars` that there are. Shown of `info`:
        time_s, speed_mps, score, progress, lap, blind. What is seen may be numbers instead of a picture.
        """
        canvas = self.empty.copy()
        pen = ImageDraw.Draw(canvas)
        self._paste(canvas, picture, WORLD, Image.Resampling.BILINEAR)
        self._seen(canvas, pen, seen)
        self._readouts(pen, info)
        self._wheels(canvas, pen, prediction, truth)
        self._bars(pen, prediction, truth)
        if info.get("blind"):
            self._blind(pen)
        return np.asarray(canvas)

    def _seen(self, canvas: Image.Image, pen: ImageDraw.ImageDraw, seen: np.ndarray) -> None:
        """Pictures as they are; numbers as figures, four to a line."""
        if seen.ndim == 3:
            self._paste(canvas, seen, SEEN, Image.Resampling.NEAREST)
            return
        x, y, width, height = self._box(SEEN)
        for index, value in enumerate(seen.reshape(-1)[:32].tolist()):
            place = (x + index % 4 * width // 4, y + index // 4 * height // 8)
            pen.text(place, f"{value:.3g}", INK, self.large)

    def _paste(self, canvas: Image.Image, picture: np.ndarray, box: tuple, smooth: Image.Resampling) -> None:
        """Pastes as large as the box allows, in its upper left corner; where there is room pixels grow alike."""
        x, y, width, height = self._box(box)
        factor = min(width / picture.shape[1], height / picture.shape[0])
        if smooth == Image.Resampling.NEAREST and factor >= 2:
            factor = int(factor)
        size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
        image = Image.fromarray(np.ascontiguousarray(picture))
        shown = image if image.size == size else image.resize(size, smooth)
        canvas.paste(shown, (x, y))

    def _readouts(self, pen: ImageDraw.ImageDraw, info: Info) -> None:
        left, top, apart = (self._px(each) for each in READOUTS)
        for index, (name, value) in enumerate(readouts(info)):
            x = left + index * apart
            pen.text((x, top), name, MUTED, self.small)
            pen.text((x, top + self._px(20)), value, INK, self.large)

    def _wheels(
        self,
        canvas: Image.Image,
        pen: ImageDraw.ImageDraw,
        prediction: Mapping[str, float],
        truth: Mapping[str, float] | None,
    ) -> None:
        x, y, width, size = self._box(WHEELS)
        hands = [("model", prediction, MODEL)]
        if truth is not None:
            hands.append((self.truth_name, truth, TRUTH))
        for index, (name, wish, colour) in enumerate(hands):
            middle = x + width * (2 * index + 1) // (2 * len(hands))
            wheel = turned_wheel(size, colour, wheel_degrees(wish["steer"]))
            canvas.paste(wheel, (middle - size // 2, y), wheel)
            text = f"{name} {steer_words(wish['steer'])}"
            pen.text((middle, y + size + self._px(6)), text, colour, self.small, anchor="ma")

    def _bars(
        self, pen: ImageDraw.ImageDraw, prediction: Mapping[str, float], truth: Mapping[str, float] | None
    ) -> None:
        x, y, width, apart = self._box(self.bars_box)
        names = [name for name in self.bars if name in prediction]
        for index, name in enumerate(names):
            row, start, thick = y + index * apart, x + self._px(self.label_width), self._px(10)
            low, high = self.bars[name]

            def at(value: float, start=start, low=low, high=high) -> int:
                share = (min(max(value, low), high) - low) / (high - low)
                return round(start + share * (x + width - 1 - start))

            pen.text((x, row - self._px(3)), name, MUTED, self.small)
            pen.rectangle((start, row, x + width - 1, row + thick), RULE)
            ends = sorted((at(0.0), at(prediction[name])))
            pen.rectangle((ends[0], row, ends[1], row + thick), MODEL)
            if truth is not None and name in truth:
                mark = at(truth[name])
                pen.rectangle((mark - 1, row - self._px(3), mark + 1, row + thick + self._px(3)), TRUTH)

    def _blind(self, pen: ImageDraw.ImageDraw) -> None:
        x, y, width, height = self._box(SEEN)
        pen.rectangle((x, y, x + width - 1, y + height - 1), outline=ALARM, width=self._px(3))
        pen.text((x + width // 2, y + height // 2), "blind", ALARM, self.large, anchor="mm")

    def _px(self, base: float) -> int:
        return max(1, round(base * self.scale))

    def _even(self, base: float) -> int:
        return 2 * max(1, round(base * self.scale / 2))

    def _box(self, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        x, y, width, height = (self._px(each) for each in box)
        return x, y, width, height


class Controls(Dashboard):
    """Draws single steps of any world: its scene, what the model sees, its facts, a bar for each control."""

    bars_box, label_width = (648, 330, 288, 26), 110

    def __init__(self, controls: Mapping[str, tuple[float, float]], width: int = BASE_WIDTH):
        super().__init__(width)
        self.bars = controls

    def _readouts(self, pen: ImageDraw.ImageDraw, info: Info) -> None:
        left, top, apart = (self._px(each) for each in READOUTS)
        for index, (name, value) in enumerate(list(info.items())[:6]):
            x = left + index * apart
            pen.text((x, top), name.replace("_", " "), MUTED, self.small)
            pen.text((x, top + self._px(20)), _said(value), INK, self.large)

    def _wheels(
        self,
        canvas: Image.Image,
        pen: ImageDraw.ImageDraw,
        prediction: Mapping[str, float],
        truth: Mapping[str, float] | None,
    ) -> None:
        """Draws no wheel: all controls are bars, the model's choice filled, the expert's a mark."""


def _said(value: FactValue) -> str:
    """A fact in few characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:.2f}"


def readouts(info: Info) -> list[tuple[str, str]]:
    """Names and values of what is known, in the order in which they stand."""
    found = []
    if "time_s" in info:
        found.append(("time", f"{info['time_s']:.1f} s"))
    if "speed_mps" in info:
        found.append(("speed", f"{info['speed_mps']:.{0 if info['speed_mps'] >= 10 else 1}f} m/s"))
    if "score" in info:
        found.append(("score", f"{info['score']:.0f}"))
    if info.get("lap"):
        found.append(("lap", "finished"))
    elif "progress" in info:
        found.append(("lap", f"{100 * info['progress']:.0f} %"))
    return found


def steer_words(steer: float) -> str:
    """Size and side, as 0.23 left."""
    return f"{abs(steer):.2f} {'left' if steer >= 0.005 else 'right' if steer <= -0.005 else ''}".strip()


def wheel_degrees(steer: float) -> int:
    """Turn of a drawn wheel in whole degrees, counter-clockwise, for a steer in [-1, 1], left positive."""
    return round(FULL_LOCK_DEG * min(max(steer, -1.0), 1.0))


@lru_cache(maxsize=1024)
def turned_wheel(size: int, colour: tuple[int, int, int], degrees: int) -> Image.Image:
    """A wheel of that many pixels across, its top marked, turned counter-clockwise."""
    fine = _wheel(size * FINE, colour).rotate(degrees, Image.Resampling.BILINEAR)
    return fine.reduce(FINE)


@lru_cache(maxsize=8)
def _wheel(size: int, colour: tuple[int, int, int]) -> Image.Image:
    # The transparent ground has the rim's colour, or shrinking would give it a dark edge.
    wheel = Image.new("RGBA", (size, size), (*INK, 0))
    pen = ImageDraw.Draw(wheel)
    middle, rim = size / 2, round(size * 0.085)
    grip = (205, 211, 217, 255)
    for degrees in (0, 90, 180):  # the three spokes: right, down, left
        radians = np.deg2rad(degrees)
        end = (middle + 0.44 * size * np.cos(radians), middle + 0.44 * size * np.sin(radians))
        pen.line([(middle, middle), end], fill=grip, width=round(size * 0.055))
    pen.ellipse((0, 0, size - 1, size - 1), outline=grip, width=rim)
    pen.arc((0, 0, size - 1, size - 1), -90 - 13, -90 + 13, fill=(*colour, 255), width=rim)
    hub = 0.115 * size
    pen.ellipse((middle - hub, middle - hub, middle + hub, middle + hub), fill=grip)
    return wheel


@lru_cache(maxsize=32)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)

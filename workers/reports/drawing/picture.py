"""A map as a PNG, by matplotlib without its global state: dots as they lie, names upon them, and what it shows in words."""

import textwrap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.reports.drawing.chart import Chart
from workers.reports.drawing.colouring import DARK, LIGHT, Colouring, Theme, by_cluster
from workers.reports.drawing.lettering import arrange, in_lines
from workers.reports.drawing.whole import whole_file

DPI = 150
WIDTH, HEIGHT = 1650, 1860
"""Of the picture, in pixels."""
SIDE, TOP, BOTTOM = 40, 130, 120
"""Margins in pixels: title and caption are in them."""
KEY = (392, 30)
"""Pixels of an entry of the legend."""
BLOCK = 2_000_000
"""Pixels of dots that are added at a time."""
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans Devanagari")
"""Those that the machine has are asked in turn for a letter."""


def draw(chart: Chart, out: Path, dark: bool = False, colouring: Colouring | None = None) -> None:
    """Write the map to `out`, a PNG of 1650 x 1860 pixels; whole or not at all. The same chart gives the same bytes.

    `colouring`: by cluster, if there is no other.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="none")
    canvas: Any = FigureCanvasAgg(figure)
    sheet = _Sheet(chart, colouring or by_cluster(chart), DARK if dark else LIGHT)
    sheet.write_around(figure, sheet.write_names(figure))
    canvas.draw()
    letters = np.asarray(canvas.buffer_rgba(), np.float32)
    cover = letters[..., 3:] / 255
    picture = np.rint(letters[..., :3] * cover + sheet.dots() * (1 - cover)).astype(np.uint8)
    described = PngInfo()
    described.add_itxt("Title", chart.about.title)
    described.add_itxt("Description", f"{chart.about.subtitle}. {chart.caption}")
    with whole_file(out, replace=True) as part:
        Image.fromarray(picture).save(part, "PNG", pnginfo=described, dpi=(DPI, DPI))


@dataclass(frozen=True)
class _Sheet:
    """One picture."""

    chart: Chart
    colouring: Colouring
    theme: Theme

    @cached_property
    def legend(self) -> list[tuple[str, str]]:
        """(colour, meaning), of colours that mean something."""
        return [pair for pair in zip(self.colouring.colours(self.theme), self.colouring.labels, strict=False) if pair[1]]

    @cached_property
    def top(self) -> int:
        """Pixels above the map."""
        in_a_row = (WIDTH - 2 * SIDE) // KEY[0]
        return TOP + KEY[1] * (-(-len(self.legend) // in_a_row) + bool(self.legend))

    def pixels(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2): x from the left and y from the top; the map as large as fits, both axes on one scale."""
        known = self.chart.places[self.chart.placed].astype(np.float64)
        low, high = (known.min(axis=0), known.max(axis=0)) if len(known) else (np.zeros(2), np.ones(2))
        room = np.array([WIDTH - 2 * SIDE, HEIGHT - self.top - BOTTOM - SIDE])
        scale = float((room / np.maximum(high - low, 1e-9)).min())
        return (places - (low + high) / 2) * scale * [1, -1] + [WIDTH / 2, (self.top + HEIGHT - BOTTOM) / 2]

    def dots(self) -> NDArray[np.float32]:
        """(HEIGHT, WIDTH, 3), 0 to 255. Where dots lie upon each other their colours are mixed, whichever came first: none hides another.

        Dots are the smaller, the more there are.
        """
        there = self.chart.shown
        columns, rows = np.clip(np.rint(self.pixels(self.chart.places[there].astype(np.float64))), 0, [WIDTH - 1, HEIGHT - 1]).T
        colours = np.array([_rgb(colour) for colour in self.colouring.colours(self.theme)])[self.colouring.codes[there]]
        pixel, sizes = (rows * WIDTH + columns).astype(np.int64), np.rint(2 * self.chart.sizes[there]) / 2
        radius = float(np.clip(380 / np.sqrt(max(len(pixel), 1)), 0.7, 7))
        layers = np.zeros((4, WIDTH * HEIGHT), np.float32)
        for size in np.unique(sizes):
            of_size = sizes == size
            _splat(pixel[of_size], colours[of_size], radius * float(size), layers)
        amount, mixed = layers[0, :, None], layers[1:].T
        cover = 1 - np.exp(-np.float32(min(radius, 1.4)) * amount)
        mixture = mixed / np.maximum(amount, np.float32(1e-6)) * cover + np.array(_rgb(self.theme.paper), np.float32) * (1 - cover)
        return np.asarray(mixture.reshape(HEIGHT, WIDTH, 3))

    def write_names(self, figure: Any) -> int:
        """Largest clusters first; gives how many had room."""
        from matplotlib.patheffects import withStroke

        clusters = [cluster for cluster in self.chart.clusters_by_size if cluster.middle]
        centres = self.pixels(np.array([cluster.middle for cluster in clusters], np.float64).reshape(-1, 2))
        halo = [withStroke(linewidth=3.2, foreground=self.theme.paper)]
        texts, wanted = [], []
        for cluster, (x, y) in zip(clusters, centres.tolist(), strict=True):
            size = 6.5 + 4.5 * (cluster.share / clusters[0].share) ** 0.5
            text = self._text(figure, x, y, in_lines(cluster.name, 14), size, ha="center", va="center", linespacing=1.0, path_effects=halo)
            extent = text.get_window_extent(figure.canvas.get_renderer())
            texts.append(text)
            wanted.append((x, HEIGHT - y, extent.width, extent.height))
        boxes = arrange(wanted, (SIDE / 2, BOTTOM, WIDTH - SIDE / 2, HEIGHT - self.top), gap=3)
        for text, box in zip(texts, boxes, strict=True):
            text.set_visible(box is not None)
            if box:
                text.set_position(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
        return len(boxes) - boxes.count(None)

    def write_around(self, figure: Any, names: int) -> None:
        """Title, legend and caption. `names`: how many clusters have theirs on the map."""
        from matplotlib.patches import Circle
        from matplotlib.transforms import IdentityTransform

        about, colouring, clusters = self.chart.about, self.colouring, len(self.chart.clusters_by_size)
        self._text(figure, SIDE, 30, about.title, 17, va="top", weight="bold")
        self._text(figure, SIDE, 82, about.subtitle, 10, va="top", color=self.theme.beside)
        in_a_row = (WIDTH - 2 * SIDE) // KEY[0]
        if self.legend:
            self._text(figure, SIDE, TOP, colouring.title, 10, va="center", weight="bold")
        for place, (colour, meaning) in enumerate(self.legend):
            x, y = SIDE + place % in_a_row * KEY[0], TOP + KEY[1] * (place // in_a_row + 1)
            figure.add_artist(Circle((x + 8, HEIGHT - y), 8, color=colour, transform=IdentityTransform()))
            self._text(figure, x + 26, y, meaning, 9, va="center")
        few = f"{names:,} of {clusters:,} names had room." if names < clusters else ""
        caption = textwrap.fill(" ".join(filter(None, (self.chart.caption, colouring.note, few))), 150)
        self._text(figure, SIDE, HEIGHT - BOTTOM + 20, caption, 8.5, va="top", color=self.theme.beside, linespacing=1.3)

    def _text(self, figure: Any, x: float, y: float, text: str, size: float, **options: Any) -> Any:
        """At pixels from the left and from the top. A dollar in a name is a dollar, and no formula."""
        from matplotlib.transforms import IdentityTransform

        options = {"color": self.theme.ink, "family": _families(), **options}
        return figure.text(x, HEIGHT - y, text, fontsize=size, parse_math=False, transform=IdentityTransform(), **options)


def _families() -> list[str]:
    from matplotlib.font_manager import fontManager

    there = set(fontManager.get_font_names())
    return [name for name in FONTS if name in there]


def _splat(pixel: NDArray[np.int64], colours: NDArray[np.float64], radius: float, layers: NDArray[np.float32]) -> None:
    """Add a disc of `radius` pixels with a soft edge at each pixel (n,), in its colour (n, 3). `layers`: amount, red, green, blue; flat."""
    reach = np.arange(-int(radius + 1), int(radius + 1) + 1)
    covered = np.clip(radius + 0.5 - np.hypot(reach[:, None], reach), 0, 1)
    down, right = np.nonzero(covered)
    offsets, weights = (down - len(reach) // 2) * WIDTH + right - len(reach) // 2, covered[down, right]
    step = max(1, BLOCK // len(offsets))
    for first in range(0, len(pixel), step):
        some = slice(first, first + step)
        where = (pixel[some, None] + offsets).ravel()
        for number, strength in enumerate((np.ones(len(pixel)), *colours.T)):
            layers[number] += np.bincount(where, (strength[some, None] * weights).ravel(), WIDTH * HEIGHT)


def _rgb(colour: str) -> list[float]:
    """Of `#rrggbb`, 0 to 255."""
    return [float(value) for value in bytes.fromhex(colour[1:])]

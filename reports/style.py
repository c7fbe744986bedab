"""How figures look: one style sheet, one palette, one frame with a title above and a caption below.

From nothing to an empty Figure, and from a Figure to its files. No pyplot: a figure belongs to whoever
made it and is gone with it. Draws no data.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any, Final, ParamSpec

from matplotlib import RcParams, rc_context, rc_params_from_file
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import ArrayLike

__all__ = [
    "CAUSE_COLOURS",
    "ENGINE_COLOURS",
    "INK",
    "MUTED",
    "VERDICT_COLOURS",
    "dot_key",
    "dots",
    "finish",
    "grouped",
    "line_key",
    "new_figure",
    "no_data",
    "save",
    "share_axis",
    "styled",
    "tag",
]

# Okabe and Ito, Color Universal Design (2008)
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
INK, MUTED = "#222222", "#767676"
ENGINE_COLOURS: Final = {"theory": BLACK, "simulated": BLUE, "real": VERMILION}
VERDICT_COLOURS: Final = {"pass": GREEN, "fail": VERMILION, "unknown": MUTED}
CAUSE_COLOURS: Final = {
    "heartbeat": BLUE,
    "tcp_fin": ORANGE,
    "tcp_reset": YELLOW,
    "tcp_timeout": VERMILION,
    "close_frame": GREEN,
    "session_timeout": PURPLE,
    "sweep": SKY,
    "ttl": "#999933",
    "send_error": "#882255",
    "state_check": "#44AA99",
    "node_lease": "#332288",
    "recovered": "#BDBDBD",
    "censored": "#E4E4E4",
    "": "#8C8C8C",
}

_STYLE_FILE: Final = Path(__file__).parent / "flatline.mplstyle"
_PNG_COMPRESSION: Final = 3  # a twelfth more bytes than Pillow's own choice, in half of the time
_PNG_DPI: Final = 125
_PLACES: Final = 6  # of a figure's width: a hundredth of a pixel
_LINE: Final = 150  # characters of a caption line at its size
_P = ParamSpec("_P")


@cache
def _style() -> RcParams:
    return rc_params_from_file(_STYLE_FILE, use_default_template=True)


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Draw a figure under the project's style, whatever the style around it is."""

    @wraps(draw)
    def under_style(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with rc_context(dict(_style())):
            return draw(*args, **kwargs)

    return under_style


def new_figure(
    rows: int = 1, columns: int = 1, *, height: float = 7.2, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure 12.8 inches wide and its axes in reading order."""
    figure = Figure(figsize=(12.8, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def finish(figure: Figure, title: str, caption: str, legend: Sequence[Artist] = ()) -> Figure:
    """Set the title and the legend above and the caption line(s) below, and keep room for them."""
    lines = textwrap.wrap(caption, _LINE)
    height = figure.get_size_inches()[1]
    foot, head = (0.12 + 0.19 * len(lines)) / height, (0.8 if legend else 0.48) / height
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0.005, foot, 0.99, 1 - foot - head))
    figure.text(0.012, 1 - 0.14 / height, title, va="top", fontsize=16, fontweight="bold", color=INK)
    figure.text(
        0.012, 0.07 / height, "\n".join(lines), va="bottom", fontsize=11, color="#555555", linespacing=1.2
    )
    if legend:
        box = figure.legend(
            handles=list(legend),
            loc="upper left",
            bbox_to_anchor=(0.004, 1 - 0.42 / height),
            ncols=len(legend),
            columnspacing=1.6,
            handletextpad=0.6,
            borderaxespad=0.2,
        )
        box.set_in_layout(False)
    return figure


def no_data(axes: Axes, sentence: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.text(
        0.5, 0.5, textwrap.fill(sentence, 46), transform=axes.transAxes, ha="center", va="center", color=MUTED
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def line_key(colour: str, label: str, **options: Any) -> Line2D:
    """Return a legend's entry: a short thick line, unless the options (of `Line2D`) say otherwise."""
    return Line2D([], [], color=colour, label=label, **({"linewidth": 3} | options))


def dot_key(colour: str, label: str, marker: str = "o", **options: Any) -> Line2D:
    """Return a legend's entry: a marker."""
    dot: dict[str, Any] = {"marker": marker, "markersize": 8, "linestyle": ""}
    return Line2D([], [], color=colour, label=label, **(dot | options))


def dots(axes: Axes, x: ArrayLike, y: ArrayLike, colour: str, marker: str = "o", **options: Any) -> None:
    """Draw markers that no line joins; options of `Axes.plot`."""
    look: dict[str, Any] = {
        "marker": marker,
        "markersize": 8,
        "markeredgewidth": 0,
        "linestyle": "",
        "zorder": 3,
    }
    axes.plot(x, y, color=colour, **(look | options))


def tag(axes: Axes, text: str, at: tuple[float, float], colour: str, **options: Any) -> None:
    """Write beside a point, eight points to its right; options of `Axes.annotate`."""
    look: dict[str, Any] = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "fontsize": 11}
    axes.annotate(text, at, color=colour, **(look | options))


def share_axis(axes: Axes) -> None:
    """Have a y axis from 0 to 100 %."""
    axes.set_ylim(-0.03, 1.06)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def grouped(spec: str) -> FuncFormatter:
    """Return a formatter of an axis' numbers with thousands separated: ``.4g``, ``.0f``."""
    return FuncFormatter(lambda value, _: f"{value:,{spec}}")


def _settle(figure: Figure) -> None:
    """Round where the axes are: the layout's solver is off by a different last bit each time."""
    for axes in figure.axes:
        for which in ("original", "active"):
            box = axes.get_position(original=which == "original")
            left, bottom, width, height = (round(edge, _PLACES) for edge in box.bounds)
            axes.set_position((left, bottom, width, height), which=which)


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `<name>.svg` and `<name>.png` (1600 pixels wide); return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / f"{name}.svg", folder / f"{name}.png"
    _render(figure, *files)
    return files


def _render(figure: Figure, svg: Path, png: Path) -> None:
    with rc_context(dict(_style())):
        # Lay out once and print from the canvases: `savefig` would lay out and draw twice for each file.
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
            _settle(figure)
        figure.set_layout_engine("none")
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            svg, metadata={"Date": None, "Creator": "flatline"}
        )
        figure.set_dpi(_PNG_DPI)
        FigureCanvasAgg(figure).print_png(  # type: ignore[no-untyped-call]
            png, metadata={"Software": "flatline"}, pil_kwargs={"compress_level": _PNG_COMPRESSION}
        )

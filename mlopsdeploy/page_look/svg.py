"""Plots as SVG to stand within a page.

Colours are the page's CSS variables, so that one drawing serves light, dark and paper; text stays
text, in the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

SERIES = 9  # colours: eight labels and all others

# Colours that stand for the page's variables until `svg` names these.
INK, QUIET, LINE = "#010101", "#020202", "#030303"
_VARIABLES = {INK: "--ink", QUIET: "--quiet", LINE: "--line"}
_VARIABLES |= {f"#04040{place}": f"--s{place}" for place in range(SERIES)}

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "font.size": 10,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": LINE,
    "xtick.labelcolor": QUIET,
    "ytick.color": LINE,
    "ytick.labelcolor": QUIET,
    "ytick.major.size": 0,
}


def color(series: int) -> str:
    """The colour of a label by its place among those that are shown; the last is for all others."""
    return f"#04040{min(series, SERIES - 1)}"


def svg(
    width: int,
    height: int,
    words: str,
    draw: Callable[..., None],
    heights: Sequence[int] = (1,),
) -> str:
    """What `draw` draws into axes, one above the other, as an SVG element.

    Only `Figure` is used, and never pyplot, which keeps figures alive and asks for a display.
    """
    # Ids come from what they name and this salt: the same in each run, and different in each plot.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{words} {width}"}):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        panels = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)
        draw(*panels[:, 0])
        figure.patch.set_visible(False)
        for axes in panels[:, 0]:
            axes.patch.set_visible(False)
        file = io.StringIO()
        canvas.print_svg(
            file, metadata={"Date": None, "Creator": None, "Type": None, "Format": None}
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style).*?</\1>|<!--.*?-->", "", text, flags=re.DOTALL)
    referred = set(re.findall(r'(?:href="#|url\(#)([\w-]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in referred else "", text)
    for stands_for, variable in _VARIABLES.items():
        text = text.replace(stands_for, f"var({variable})")
    text = re.sub(r"font: (\S+px) [^;\"]+", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]+;?", "", text)
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_quoted(words)}">'
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1).strip()


def _quoted(words: str) -> str:
    return words.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")

"""Pictures that follow the page: drawn once with named stand-in colours, which become CSS variables."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Wong's colour-blind safe hues, darkened for text on white (contrast over 4.5) and lightened for dark pages.
LIGHT = ("#0067a5", "#b84a00", "#00765a", "#9c3a76", "#5f45b5", "#7a5c00", "#ad2018", "#006f83")
DARK = ("#62b6f5", "#f59a57", "#3fcfa5", "#e993c7", "#b7a4fa", "#dfb941", "#ff948a", "#4fd0e0")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "warmstart",
    "text.parse_math": False,
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
}
_STAND_INS = {"ink": "#000001", "muted": "#000002", "line": "#000003", "page": "#000004", "base": "#000005"}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


@dataclass(frozen=True)
class Palette:
    """Colours of one drawing: `ink` text, `muted` axes, `line` grid, `page` ground, `base` the baseline."""

    ink: str
    muted: str
    line: str
    page: str
    base: str
    arms: tuple[str, ...]

    def arm(self, index: int) -> str:
        """Colour of the arm with this index among the arms that are not the baseline."""
        return self.arms[index % len(self.arms)]


PAPER = Palette("#1b1f24", "#57606a", "#d8dee4", "#ffffff", "#3d444d", LIGHT)
CSS = Palette(**_STAND_INS, arms=tuple(f"#0001{i:02x}" for i in range(len(LIGHT))))


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """`figure`, drawn with the palette `CSS`, as an `<svg>` element for the page.

    Text stays text, colours become `var(--…)`, ids get the prefix `name` so that several drawings can
    stand on one page, and title and description are there for screen readers.
    """
    from html import escape

    import matplotlib as mpl

    buffer = StringIO()
    with (
        mpl.rc_context(STYLE),
        warnings.catch_warnings(),
    ):  # a font that lacks a script matters for the PNG alone
        warnings.simplefilter("ignore")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for key, colour in _STAND_INS.items():
        text = text.replace(colour, f"var(--{key})")
    for index, colour in enumerate(CSS.arms):
        text = text.replace(colour, f"var(--arm-{index})")
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = text.replace("'DejaVu Sans'", _FONT)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert size is not None
    head = (
        f'<svg viewBox="0 0 {size[1]} {size[2]}" role="img" aria-labelledby="{name}-t {name}-d" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(description)}</desc>'
    )
    return re.sub(r"\n\s*", "\n", re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)).strip()


def png(figure: Figure, dpi: int = 150) -> bytes:
    """`figure`, drawn with the palette `PAPER`, as PNG."""
    import matplotlib as mpl

    buffer = BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()

"""The figures that were drawn, as the page shows them: the picture inside the page, the PDF beside it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec
from PIL import Image

from analysis.holdings import BASE_STEP
from analysis.tables.model import Source
from reprokit.records.files import read_json

COLOURS = 256
_NOTE = " Note: "  # begins each note at the end of a caption


class Listed(msgspec.Struct, kw_only=True):
    """What `figures/index.json` says of one figure; `run`: the run that it is of, empty for figures of the paper."""

    figure: str
    run: str
    heading: str
    caption: str
    files: list[str]
    sidecar: str
    made_from: list[Source]
    reason: str = ""


class Index(msgspec.Struct, kw_only=True):
    """`figures/index.json`."""

    figures: list[Listed]


class Value(msgspec.Struct):
    """One of the values that a figure shows."""

    step: int


class Sidecar(msgspec.Struct):
    """The values behind a figure."""

    values: list[Value]


@dataclass(frozen=True)
class Picture:
    """A figure on the page; sizes in pixels.

    `image` is a data URI, `pdf` the path of the other file within the folder of figures; both are empty where nothing
    could be drawn. `shows_bases_only`: of none of its runs any checkpoint is known.
    """

    listed: Listed
    image: str = ""
    width: int = 0
    height: int = 0
    pdf: str = ""
    shows_bases_only: bool = False

    @property
    def caption(self) -> str:
        """The caption without the title that stands above the picture, and without the notes."""
        start = f"{self.listed.run}. " if self.listed.run else f"Figure {self.listed.figure}. {self.listed.heading}. "
        return self.listed.caption.partition(_NOTE)[0].removeprefix(start)

    @property
    def notes(self) -> list[str]:
        """The notes at the end of the caption."""
        return self.listed.caption.split(_NOTE)[1:]

    @property
    def link(self) -> str:
        """Address of the PDF as seen from the page."""
        return quote(f"figures/{self.pdf}")

    @property
    def title(self) -> str:
        """`Figure 3`, for what it shows stands in the picture; `mini: Score`."""
        return self.name if self.listed.run else f"Figure {self.listed.figure}"

    @property
    def name(self) -> str:
        """For example `Figure 3: Dip and recovery`."""
        return f"{self.listed.run or f'Figure {self.listed.figure}'}: {self.listed.heading}"

    @property
    def number(self) -> str | None:
        """That of the paper, None for a figure of a run that the paper has none of."""
        return None if self.listed.run else self.listed.figure


def read_pictures(folder: Path) -> list[Picture]:
    """All figures of `folder/index.json`, in its order."""
    return [_picture(folder, listed) for listed in read_json(folder / "index.json", Index).figures]


def _picture(folder: Path, listed: Listed) -> Picture:
    image = next((name for name in listed.files if name.endswith(".png")), None)
    if image is None:
        return Picture(listed)
    with Image.open(folder / image) as opened:
        width, height, data = *opened.size, base64.b64encode(_small(opened)).decode()
    pdf = next((name for name in listed.files if name.endswith(".pdf")), "")
    return Picture(listed, f"data:image/png;base64,{data}", width, height, pdf, _shows_bases_only(folder, listed))


def _shows_bases_only(folder: Path, listed: Listed) -> bool:
    values = read_json(folder / listed.sidecar, Sidecar).values
    return not listed.run and all(value.step == BASE_STEP for value in values)


def _small(image: Image.Image) -> bytes:
    """The picture as PNG with a palette, which a drawing does with: a third of the size, and no difference to see."""
    content = io.BytesIO()
    few = image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(content, "png", optimize=True)
    return content.getvalue()

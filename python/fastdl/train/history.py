"""What a training run leaves behind: one number per epoch and quantity, and why it ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastdl._extras import need
from fastdl._files import PathLike, write_atomically

_FORMATS = ("png", "svg", "pdf")


class History(Mapping[str, list[float]]):
    """A mapping of equally long lists: ``history["loss"][epoch]``.

    Attributes
    ----------
    stopped : str
        Why the run ended: ``"epochs"`` (all done), ``"patience"``, ``"callback"``,
        ``"interrupted"`` (Ctrl-C), ``"diverged"`` (the loss became NaN or infinite), or
        ``""`` while it runs.
    best_epoch : int or None
        Epoch (from 1) with the best monitored value.
    """

    def __init__(self, columns: Mapping[str, list[float]] | None = None) -> None:
        self._columns = {name: list(values) for name, values in (columns or {}).items()}
        self.stopped = ""
        self.best_epoch: int | None = None

    def __getitem__(self, name: str) -> list[float]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"History({self.epochs} epochs, stopped={self.stopped!r}, {list(self)})"

    @property
    def epochs(self) -> int:
        """Number of completed epochs."""
        return max((len(values) for values in self._columns.values()), default=0)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the run."""
        return self.stopped == "interrupted"

    def append(self, values: Mapping[str, float]) -> None:
        """Add one epoch; every epoch has the same names."""
        if self._columns and list(self._columns) != list(values):
            raise ValueError(
                f"History.append: values must be named {list(self._columns)}, got {list(values)}"
            )
        for name, value in values.items():
            self._columns.setdefault(name, []).append(float(value))

    def to_dict(self) -> dict[str, list[float]]:
        """Return the columns as plain lists, e.g. for JSON or pandas."""
        return {name: list(values) for name, values in self._columns.items()}

    def plot(self, path: PathLike) -> None:
        """Draw the learning curves into a PNG, SVG or PDF file (replaced atomically).

        Raises
        ------
        ValueError
            The name has another ending, or there is no epoch to draw.
        MissingExtraError
            matplotlib is not installed.
        """
        kind = check_plot(path)
        if self.epochs == 0:
            raise ValueError("History.plot: the history must have an epoch, got none")
        figure = self._figure()
        write_atomically(path, lambda file: figure.savefig(file, format=kind), "History.plot")

    def _figure(self) -> Any:
        panels = _panels(list(self))
        figure = need("matplotlib.figure", "History.plot").Figure(
            figsize=(5.5 * len(panels), 4), layout="constrained"
        )
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, names) in zip(all_axes, panels.items(), strict=True):
            self._draw(axes, title, names)
        return figure

    def _draw(self, axes: Any, title: str, names: list[str]) -> None:
        epochs = range(1, self.epochs + 1)
        for name in names:
            held_out = name.startswith("val_")
            label, colour = ("held-out", "C1") if held_out else ("training", "C0")
            axes.plot(epochs, self[name], label=label, color=colour)
        finite = [value for name in names for value in self[name] if math.isfinite(value)]
        if title == "loss" and finite and min(finite) > 0:
            axes.set_yscale("log")
        if self.best_epoch is not None:
            axes.axvline(self.best_epoch, color="grey", linestyle=":", label="best")
        axes.set(xlabel="epoch", title=title)
        axes.grid(alpha=0.3)
        axes.legend()


def check_plot(path: PathLike) -> str:
    """Return the picture format of a file name, or raise before any work is done."""
    need("matplotlib.figure", "History.plot")
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in _FORMATS:
        raise ValueError(f"History.plot: path must end in .png, .svg or .pdf, got {str(path)!r}")
    return kind


def _panels(names: list[str]) -> dict[str, list[str]]:
    """Group ``loss`` with ``val_loss`` and so on; at most three panels."""
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(name.removeprefix("val_"), []).append(name)
    return dict(list(panels.items())[:3])

"""Pictures of single answers: a forecast, where CTC finds its labels, what a decoder attends to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rnnfarm.errors import JobError, RunError, printable
from rnnfarm.nn.ctc import align
from rnnfarm.training.answers import Answer
from rnnfarm.training.names import written
from rnnfarm.training.run import OpenRun
from rnnfarm.training.value_scores import middles

#: How many pictures are made, and series of a forecast that one shows.
MOST, SERIES = 8, 4


class Pictures:
    """Draws the first answers into a folder, as ``answer-0.png`` and so on."""

    def __init__(self, opened: OpenRun, folder: Path) -> None:
        self.opened, self.folder, self.count = opened, folder, 0
        decoder = opened.job.model.decoder
        forecast = opened.job.data.mode == "forecast"
        attends = decoder is not None and decoder.attention != "none"
        if not (forecast or attends or opened.model.goal == "labels"):
            raise JobError(
                "--plot shows forecasts, alignments and attention, and this model has none of "
                "them; leave it out"
            )
        _prepare(folder)

    def add(self, one: Answer) -> None:
        """Draw an answer, if it is among the first."""
        if self.count >= MOST:
            return
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 5), layout="constrained")
        if self.opened.job.data.mode == "forecast":
            self._forecast(figure, one)
        elif self.opened.model.goal == "labels":
            self._labels(figure, one)
        elif one.weights is not None:
            self._attention(figure, one)
        figure.savefig(self.folder / f"answer-{self.count}.png", dpi=100)
        self.count += 1

    def _forecast(self, figure: Any, one: Answer) -> None:
        """The history, what came, and what was said of it, for the first series."""
        horizon = self.opened.job.data.horizon
        targets = self.opened.model.loss.targets
        center, low, high = middles(self.opened.model, [one])  # (1, targets) each
        width = targets // horizon
        shown = min(SERIES, width)
        ahead = np.arange(horizon)
        for k, axes in enumerate(np.atleast_1d(figure.subplots(shown, 1, sharex=True))):
            past = one.read[:, k]
            if self.opened.model.target == "next":
                axes.plot(np.arange(-len(past), 0), past, color="0.6")
            if one.target is not None:
                came = one.target.reshape(horizon, width)[:, k]
                axes.plot(ahead, came, color="k", label="came")
            axes.plot(ahead, center.reshape(horizon, width)[:, k], color="C0", label="forecast")
            if low is not None:
                bounds = (part.reshape(horizon, width)[:, k] for part in (low, high))
                axes.fill_between(ahead, *bounds, color="C0", alpha=0.25, label="interval")
        axes.legend(loc="upper left")
        scaled = ", scaled values" if self.opened.model.scales else ""
        place = one.place
        figure.suptitle(f"sequence {place.number} from step {place.step} on{scaled}")

    def _labels(self, figure: Any, one: Answer) -> None:
        """The probabilities of the labels that were found, over the steps."""
        logits = one.output - one.output.max(-1, keepdims=True)
        likely = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        axes = figure.subplots()
        names = self._words(self.opened.model.target, one.found)
        for label, name in dict(zip(one.found, names, strict=True)).items():
            axes.plot(likely[:, label], label=name)
        axes.plot(likely[:, 0], color="0.7", label="blank")
        path = align(one.output, len(one.output), np.array(one.found, np.int64))
        for k, name in enumerate(names):
            place = int(np.flatnonzero(path == k).mean()) if (path == k).any() else 0
            axes.annotate(name, (place, 1.02))
        axes.set(xlabel="step", ylabel="probability", ylim=(0, 1.1))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    def _attention(self, figure: Any, one: Answer) -> None:
        """The weights of the input's steps (across) for each word (down)."""
        model, steps = self.opened.model, len(one.read)
        axes = figure.subplots()
        axes.imshow(one.weights[: len(one.found), :steps], cmap="Blues", aspect="auto")
        axes.set_yticks(range(len(one.found)), self._words(model.target, one.found))
        if model.column.kind == "tokens":
            axes.set_xticks(range(steps), self._words(model.input, one.read), rotation=60)
        else:
            axes.set(xlabel="step of the input")

    def _words(self, column: str, tokens: Iterable[int]) -> list[str]:
        return list(map(literal, written(self.opened.dataset.vocabulary(column), tokens)))


def literal(text: str) -> str:
    """Return a word as matplotlib writes it: no formula between dollars, no name that a legend
    leaves out since it begins with an underscore."""
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def draw_confusion(folder: Path, report: Mapping[str, Any]) -> None:
    """Draw the confusion matrix of an evaluation into a folder, as ``confusion.png``."""
    found = report.get("confusion")
    if found is None:
        raise JobError(
            "--plot draws the confusion matrix of a model of a few classes, and this evaluation "
            "has none; leave it out"
        )
    _prepare(folder)
    from matplotlib.figure import Figure

    names, counts = list(map(literal, map(str, found["classes"]))), np.array(found["counts"])
    side = 3 + 0.35 * len(names)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    figure.colorbar(axes.imshow(counts, cmap="Blues"))
    axes.set_xticks(range(len(names)), names, rotation=60)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="prediction", ylabel="truth")
    for truth, said in np.argwhere(counts):
        color = "w" if counts[truth, said] > counts.max() / 2 else "k"
        axes.annotate(
            str(counts[truth, said]), (said, truth), ha="center", va="center", color=color
        )
    figure.savefig(folder / "confusion.png", dpi=100)


def _prepare(folder: Path) -> None:
    """Make a folder for pictures; JobError where there is nothing to draw with."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise JobError(
            "--plot needs matplotlib, which is not here; run pip install 'rnnfarm[plot]'"
        ) from None
    mpl.use("Agg")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); name another") from error

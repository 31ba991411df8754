"""What a model answers, as JSON has it: where it is from, what is said, and what is true."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfarm.data.left_out import Place
from rnnfarm.data.observed import counted_by
from rnnfarm.data.split import Split
from rnnfarm.data.window import NEXT
from rnnfarm.training.answers import Answer
from rnnfarm.training.names import class_names
from rnnfarm.training.source import Source
from rnnfarm.training.value_scores import middles

#: Of more classes than that the likeliest ones are told.
CLASSES, LIKELIEST = 20, 5
Row = dict[str, Any]


class Describer:
    """Makes rows of answers for the sequences of a split or a file."""

    def __init__(self, source: Source, part: Split) -> None:
        self.source, self.part, self.opened = source, part, source.opened
        self.model = self.opened.model
        self.target = self.model.target_column
        self.column = self.opened.dataset.columns[self.target]
        self.vocabulary = self.opened.dataset.vocabulary(self.target)
        self.names = class_names(self.opened.dataset, self.target)
        self.files: list[str] = []
        if source.file is not None:
            self.files = [] if source.files == [source.file] else list(map(str, source.files))
        elif self.opened.dataset.provenance is not None:
            self.files = [file.path for file in self.opened.dataset.provenance.files]

    def answer(self, one: Answer) -> Row:
        """Return the row of an answer for a whole sequence, or of a forecast."""
        forecast = self.opened.job.data.mode == "forecast"
        row = self._place(one.place, start=forecast)
        if self.model.loss.loss.target_kind == "values":
            said = middles(self.model, [one])
            parts = [None if part is None else part[0] for part in said]
            row |= self._values(parts, (self.opened.job.data.horizon,) if forecast else ())
            if one.target is not None:
                row["truth"] = self._own(one.target, (len(row["prediction"]),) if forecast else ())
            return row
        row["prediction"] = one.found
        if isinstance(one.found, int):
            row |= self._probabilities(one.output)
        row |= self._text("text", one.found)
        if one.target is not None:
            row |= {"truth": one.target} | self._text("truth_text", one.target)
        return row

    def steps(self, place: Place, output: Any) -> Row:
        """Return the row of a window's output (T, O)."""
        row = self._place(place, start=True)
        if self.model.loss.loss.target_kind == "values":
            said = self.model.loss.loss.interval(output, self.model.loss.targets)
            row |= self._values(list(said), (len(output),))
        else:
            classes = output.argmax(-1)
            row["prediction"] = classes.tolist()
            if self.vocabulary is not None:
                row["text"] = self.vocabulary.decode(classes)
            row |= self._probabilities(output)
        return row | ({"truth": self._truth(place, len(output))} if self.source.known else {})

    def _place(self, place: Place, start: bool) -> Row:
        """Return which sequence an answer is of, and where that is from."""
        row: Row = {"sequence": place.number}
        if start:
            row["start"] = place.step
        origin = self.part.origin(place.start)
        if origin.name:
            row["name"] = origin.name
        if 0 <= origin.file < len(self.files):
            row["file"] = self.files[origin.file]
        if origin.row >= 0:
            row["row"] = origin.row
        return row

    def _values(self, parts: list[Any], shape: tuple[int, ...]) -> Row:
        """Return what is said of values, and the ends of its interval where there is one."""
        row: Row = {"columns": self.column.names} if self.column.names else {}
        for name, values in zip(("prediction", "low", "high"), parts, strict=True):
            if values is not None:
                row[name] = self._own(values, shape)
        return row

    def _own(self, values: Any, shape: tuple[int, ...]) -> Any:
        """Return values of the target as they were before they were scaled."""
        rows = np.asarray(values, np.float64).reshape(*shape, -1)
        scale = self.model.scales.get(self.target)
        return (rows if scale is None else scale.undo(rows)).tolist()

    def _probabilities(self, output: Any) -> Row:
        """Return the probabilities of classes, from log-odds (…, V): all of them by name, or those
        of the likeliest."""
        odds = np.exp(output.astype(np.float64) - output.max(-1, keepdims=True))
        shares = odds / odds.sum(-1, keepdims=True)
        if shares.shape[-1] <= CLASSES:
            turned = np.moveaxis(shares, -1, 0)
            return {"probabilities": {self.names(k): p.tolist() for k, p in enumerate(turned)}}
        order = np.argsort(-shares, axis=-1, kind="stable")[..., :LIKELIEST]
        top = np.take_along_axis(shares, order, axis=-1)
        if top.ndim == 1:
            return {"probabilities": self._named(order, top)}
        return {"probabilities": [self._named(*pair) for pair in zip(order, top, strict=True)]}

    def _named(self, order: Any, shares: Any) -> dict[str, float]:
        pairs = zip(order.tolist(), shares.tolist(), strict=True)
        return {self.names(token): share for token, share in pairs}

    def _text(self, key: str, tokens: Any) -> Row:
        """Return the text of a class or of several tokens, where they have one."""
        if self.vocabulary is None or self.vocabulary.entries is None:
            return {}
        given = tokens if isinstance(tokens, list) else [tokens]
        joined = "" if self.model.goal == "labels" else " "
        return {key: joined.join(self.names(token) for token in given)}

    def _truth(self, place: Place, steps: int) -> list[Any]:
        """Return the targets of some steps in a row, None for one that has none."""
        part, ahead = self.part, int(self.model.target == NEXT)
        low = place.start + place.step + ahead
        high = low + steps
        if ahead and (high > part.steps or part.starts(high - 1, high).size):
            high -= 1  # what comes after the last step of a sequence is another one
        found: list[Any] = part.read(self.target, low, high).tolist()
        observed = counted_by(part.columns, self.target)
        if observed is not None:
            seen = part.read(observed, low, high).tolist()
            found = [value if there else None for value, there in zip(found, seen, strict=True)]
        return found + [None] * (steps - len(found))

"""What a model's answers are measured by, and the baselines that they are compared with.

``classes`` measures classes and tags, ``text`` transcripts, translations and language models,
``forecast`` time series; ``columns`` adds up errors of values column by column. Each measure is a
function of all answers at once that gives a float.
Where the answers come in batches, the function beside it (``squared_errors`` beside ``mse``) gives
a ``Mean`` of one batch; means are added up, and their ``value()`` has the same bits however the
rows were batched. A measure of nothing is nan; arrays that don't fit each other are a ValueError.

>>> from rnnfarm.metrics.forecast import mse, squared_errors
>>> targets, predictions = [[[1.0]], [[2.0]]], [[[1.5]], [[4.0]]]
>>> mse(targets, predictions)
2.125
>>> batches = squared_errors(targets[:1], predictions[:1]), squared_errors(targets[1:], [[[4.0]]])
>>> sum(batches, Mean()).value()
2.125
"""

from __future__ import annotations

from rnnfarm.metrics.mean import Mean

__all__ = ["Mean"]

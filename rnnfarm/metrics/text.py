"""Measures of text: transcripts, translations and language models.

References are what is right, hypotheses what a model gave: two sequences of equal length whose
items belong together. An item is a string, or for letters and exact matches any sequence of ids.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnnfarm.errors import JobError
from rnnfarm.metrics.mean import Mean

Symbols: TypeAlias = Sequence[Hashable] | NDArray[Any]

# Those of sacrebleu's tokenizers that need neither a download nor another package.
TOKENIZERS = ("none", "13a", "intl", "char", "zh")


def edit_distance(reference: Symbols, hypothesis: Symbols) -> int:
    """The fewest insertions, deletions and substitutions that make one of the other (Levenshtein).

    A whole column of the table of distances is kept as the bits of two integers: the rows where
    it rises and those where it falls by one (Myers 1999 "A fast bit-vector algorithm for
    approximate string matching", in the form of Hyyrö 2003). Takes a few operations on integers of
    ``len(reference)`` bits for each symbol of ``hypothesis``.
    """
    length = len(reference)
    if length == 0:
        return len(hypothesis)
    places: dict[Hashable, int] = {}
    for place, symbol in enumerate(_plain(reference)):
        places[symbol] = places.get(symbol, 0) | 1 << place
    every, last = (1 << length) - 1, 1 << (length - 1)
    rises, falls, distance = every, 0, length
    for symbol in _plain(hypothesis):
        equal = places.get(symbol, 0)
        diagonal = (((equal & rises) + rises) ^ rises) | equal | falls
        right_rises = falls | ~(diagonal | rises)
        right_falls = diagonal & rises
        if right_rises & last:
            distance += 1
        elif right_falls & last:
            distance -= 1
        right_rises = right_rises << 1 | 1
        rises = (right_falls << 1 | ~(diagonal | right_rises)) & every
        falls = right_rises & diagonal & every
    return distance


def letter_edits(references: Sequence[Symbols], hypotheses: Sequence[Symbols]) -> Mean:
    """Edit distances over the references' lengths: the letter error rate of a batch."""
    distance = length = 0
    for reference, hypothesis in _pairs(references, hypotheses):
        distance += edit_distance(reference, hypothesis)
        length += len(reference)
    return Mean.of([float(distance)], length)


def letter_error_rate(references: Sequence[Symbols], hypotheses: Sequence[Symbols]) -> float:
    """The sum of the edit distances over the sum of the references' lengths; may be above 1.

    Items are strings, whose letters are their characters, or sequences of ids. nan where the
    references are empty.
    """
    return letter_edits(references, hypotheses).value()


def word_edits(references: Sequence[str], hypotheses: Sequence[str]) -> Mean:
    """Edit distances over the references' numbers of words: the word error rate of a batch."""
    pairs = [(a.split(), b.split()) for a, b in _pairs(references, hypotheses)]
    return letter_edits([a for a, _ in pairs], [b for _, b in pairs])


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """As ``letter_error_rate``, with words, split at white space, in place of letters."""
    return word_edits(references, hypotheses).value()


def exact_matches(references: Sequence[Symbols], hypotheses: Sequence[Symbols]) -> Mean:
    """How many hypotheses equal their reference, over how many there are."""
    equal = [list(_plain(a)) == list(_plain(b)) for a, b in _pairs(references, hypotheses)]
    return Mean.of([float(sum(equal))], len(equal))


def exact_match_rate(references: Sequence[Symbols], hypotheses: Sequence[Symbols]) -> float:
    """The share of hypotheses that equal their reference; nan where there are none."""
    return exact_matches(references, hypotheses).value()


def bleu(references: Sequence[str], hypotheses: Sequence[str], tokenize: str = "none") -> float:
    """BLEU of a corpus, 0 to 100 (Papineni et al. 2002), as sacrebleu computes it (Post 2018).

    Case counts, and n-grams without a match are smoothed exponentially: sacrebleu's defaults.
    ``tokenize`` is a name of sacrebleu's: ``none`` splits at spaces, for text that is tokenized
    already; ``13a`` tokenizes plain text, which is what published scores are mostly of. nan where
    there are no items. Raises JobError where sacrebleu isn't installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise JobError(
            "BLEU is computed by sacrebleu, which isn't installed; run pip install 'rnnfarm[text]'"
        ) from error
    if tokenize not in TOKENIZERS:
        raise ValueError(f"tokenize is one of {', '.join(TOKENIZERS)}, not {tokenize!r}")
    pairs = list(_pairs(references, hypotheses))
    if not pairs:
        return math.nan
    # By force: without its warning about text that looks tokenized.
    score = BLEU(tokenize=tokenize, force=tokenize == "none")
    return float(score.corpus_score([b for _, b in pairs], [[a for a, _ in pairs]]).score)


def bits(nats: float) -> float:
    """A cross-entropy in bits, given in nats."""
    return nats / math.log(2)


def perplexity(nats: float) -> float:
    """The exponential of a cross-entropy per token in nats, which counts as 700 at most."""
    return math.exp(min(nats, 700.0))


def unigram_nats(training_counts: ArrayLike, test_counts: ArrayLike) -> float:
    """Baseline: the cross-entropy per token in nats where each token has its training frequency.

    Both are counts (vocabulary,). A token's probability is (count + 1) / (sum of counts +
    vocabulary): Laplace's add-one smoothing. nan where the test counts are all 0.
    """
    training, test = (np.asarray(counts) for counts in (training_counts, test_counts))
    if training.ndim != 1 or training.shape != test.shape:
        raise ValueError(
            "training and test counts have one shape (vocabulary,), not "
            f"{training.shape} and {test.shape}"
        )
    for counts in (training, test):
        if counts.size and (counts.dtype.kind not in "iu" or counts.min() < 0):
            raise ValueError("counts are integers, 0 or more")
    total = int(training.sum()) + training.size
    pairs = zip(training.tolist(), test.tolist(), strict=True)
    # math.log, since NumPy's may differ in the last bit from processor to processor.
    nats = (count * math.log(total / (seen + 1)) for seen, count in pairs if count)
    return Mean.of(nats, int(test.sum())).value()


def _plain(symbols: Symbols) -> Iterable[Hashable]:
    return symbols.tolist() if isinstance(symbols, np.ndarray) else symbols


def _pairs(references: Sequence[Any], hypotheses: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise ValueError("references and hypotheses are lists of strings, not a string")
    if len(references) != len(hypotheses):
        raise ValueError(
            f"{len(references)} references and {len(hypotheses)} hypotheses; each reference has one"
        )
    return zip(references, hypotheses, strict=True)

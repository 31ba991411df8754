"""Writing text with a trained language model, token by token."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rnnfarm.data.reader import Reader
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.data.window import NEXT
from rnnfarm.errors import JobError
from rnnfarm.nn.layer import Memory, Pass
from rnnfarm.nn.random import SAMPLE, generator
from rnnfarm.plugins import Registry
from rnnfarm.training.run import OpenRun, limited, open_run
from rnnfarm.training.run_reader import run_reader
from rnnfarm.training.source import Source

log = logging.getLogger("rnnfarm")


def generate(
    run: Path,
    registry: Registry,
    *,
    prompt: str = "",
    input: Path | None = None,
    length: int = 400,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    checkpoint: str | None = None,
) -> Iterator[str]:
    """Text that goes on from a prompt, piece by piece as it is made.

    Args:
        prompt: what the model reads first; a line end if empty.
        input: instead, a file with it, or ``-`` for standard input.
        length: how many tokens are drawn.
        temperature: logits are divided by it; 0 takes the likeliest token always.
        top_k: draw only from this many of the likeliest tokens.
        top_p: draw only from as many of the likeliest as have this probability together (Holtzman
            et al. 2020); after ``top_k``.
        seed: the same seed gives the same text.

    Raises JobError for a run that is no language model.
    """
    if not temperature >= 0 or (top_k is not None and top_k < 1) or not 0 <= seed < 1 << 63:
        raise JobError(
            f"temperature = {temperature}, top_k = {top_k}, seed = {seed}: a temperature is at "
            "least 0, top_k at least 1, and a seed from 0 to below 2**63"
        )
    if top_p is not None and not 0 < top_p <= 1:
        raise JobError(f"top_p = {top_p}: it is a probability above 0 and at most 1")
    opened = open_run(run, registry, checkpoint, reads_data=False)
    vocabulary = _vocabulary(run, opened)
    random = generator(seed, SAMPLE)
    given = _given(opened, registry, prompt, input)
    if not len(given):
        given = _line_end(vocabulary)
    tokens = _tokens(opened, given, length, temperature, (top_k, top_p), random)
    return limited(vocabulary.decode_each(tokens), opened.job.training.blas_threads)


def _vocabulary(run: Path, opened: OpenRun) -> Vocabulary:
    model = opened.model
    vocabulary = opened.dataset.vocabulary(model.input)
    if model.target != NEXT or vocabulary is None or model.loss.loss.target_kind != "classes":
        raise JobError(
            f"{run}: this model does not predict the next token of a text, so it cannot generate; "
            "use 'rnnfarm predict'"
        )
    return vocabulary


def _given(
    opened: OpenRun, registry: Registry, prompt: str, path: Path | None
) -> npt.NDArray[np.int32]:
    """The tokens of a prompt, or of a file, as the reader of the run's data reads them."""
    name = opened.model.input
    if path is not None:
        with tempfile.TemporaryDirectory() as folder:
            split = Source(opened, registry, "", path).read(Path(folder))
            return np.array(split.read(name, 0, split.steps), np.int32)
    reader = run_reader(opened, registry)
    if reader is None or type(reader).encode is Reader.encode:
        vocabulary = opened.dataset.vocabulary(name)
        assert vocabulary is not None
        return vocabulary.encode(prompt)
    tokens = reader.encode(prompt)
    for note in reader.notes():
        log.warning("the prompt: %s", note)
    return tokens


def _line_end(vocabulary: Vocabulary) -> npt.NDArray[np.int32]:
    try:
        return vocabulary.encode("\n")
    except JobError:  # a text without line ends: start from its first entry
        return np.zeros(1, np.int32)


def _tokens(
    opened: OpenRun,
    given: npt.NDArray[np.int32],
    length: int,
    temperature: float,
    most: tuple[int | None, float | None],
    random: np.random.Generator,
) -> Iterator[int]:
    network = opened.model.network
    device, memory = network.device, Memory(network.device)
    states = network.zero_states(1)
    x = given[:, None]  # (T, 1)
    for count in range(length):
        reset = np.zeros((len(x), 1, 1), np.bool_)
        reset[0] = count == 0
        run = Pass(
            training=False,
            seed=opened.job.training.seed,
            step=count,
            lane=0,
            mask=None,
            reset=device.put(reset),
            states=states,
            carry=len(x),
            memory=memory,
        )
        output, _ = network.forward(opened.parameters, device.put(x), run)  # (T, 1, V)
        states = run.new_states
        token = draw(
            device.get(output[-1, 0]).astype(np.float64), temperature, most[0], random, most[1]
        )
        yield token
        x = np.array([[token]], np.int32)


def draw(
    logits: npt.NDArray[np.float64],
    temperature: float,
    top_k: int | None,
    random: np.random.Generator,
    top_p: float | None = None,
) -> int:
    """A token drawn from softmax(logits / temperature), of the likeliest alone."""
    if temperature == 0.0:
        return int(logits.argmax())
    scaled = (logits - logits.max()) / temperature
    if top_k is not None and top_k < len(scaled):
        scaled[scaled < np.partition(scaled, -top_k)[-top_k]] = -np.inf
    if top_p is not None:
        order = np.argsort(-scaled, kind="stable")
        shares = np.exp(scaled[order])
        before = (np.cumsum(shares) - shares) / shares.sum()
        scaled[order[before >= top_p]] = -np.inf  # the likeliest one always stays
    # The largest of logits plus Gumbel noise is a draw from their softmax (Gumbel 1954).
    return int((scaled + random.gumbel(size=scaled.shape)).argmax())

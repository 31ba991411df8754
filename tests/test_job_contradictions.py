"""Every pair of job keys that contradict each other, or of which one would have no effect, and what
is said of it. A change of a job that is right stands beside the sentence; ``&`` joins changes."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_tools import REGISTRY

from rnnfarm.data import Column, DatasetWriter, open_dataset
from rnnfarm.errors import DataError, JobError, RnnfarmError
from rnnfarm.job import read_job
from rnnfarm.job_reading import override
from rnnfarm.training.session import train
from rnnfarm.training.setup import make_model, make_windows

DECODER = "model.decoder={size=3, layers=[{cell='gru', hidden=4}]}"
VALUES = "data.input='values' & model.input={kind='none'} & model.loss='mse'"
FORECAST = f"{VALUES} & data.mode='forecast' & model.pool='last'"
EXAMPLES = "data.mode='examples'"
BOTH = "model.layers.0.bidirectional=true"
WHOLE = "training.window=18"
BINARY = f"{VALUES} & model.loss='binary_cross_entropy'"

#: What the job file alone shows.
JOB: list[tuple[str, str]] = [
    # forecasts and what is none
    ("data.horizon=3", "data.horizon: is of forecasts, and data.mode is 'streams'"),
    ("data.period=24", "data.period: is of forecasts"),
    ("data.relative='last'", "data.relative: is of forecasts"),
    (f"{EXAMPLES} & data.horizon=3", "data.horizon: is of forecasts, and data.mode is 'examples'"),
    (f"{FORECAST} & data.relative='season'", "data.period: is required with relative = 'season'"),
    (f"{VALUES} & data.mode='forecast'", "model.pool: is required with data.mode = 'forecast'"),
    (f"{FORECAST} & {DECODER}", "model.decoder: writes tokens, and data.mode = 'forecast'"),
    (f"{FORECAST} & training.stride=2", "training.stride: windows overlap only with"),
    (
        f"{FORECAST} & model.loss='cross_entropy'",
        "model.loss: 'cross_entropy' is of classes",
    ),
    (f"{FORECAST} & model.loss='ctc'", "model.loss: 'ctc' is of classes, and a forecast of values"),
    (
        f"{FORECAST} & model.loss='binary_cross_entropy' & data.relative='last'",
        "data.relative: 'binary_cross_entropy' is of targets from 0 to 1, and differences are not",
    ),
    # what shows a model its targets
    (f"{EXAMPLES} & {BOTH}", "model.layers.0.bidirectional: reads every step that comes after"),
    ("data.input='tokens' & data.target='tokens'", "data.target: 'tokens' is the input itself"),
    # whole sequences
    (BOTH, "model.layers.0.bidirectional: cannot be used with data.mode = 'streams'"),
    ("model.pool='last'", "model.pool: reads whole sequences, and data.mode = 'streams' has none"),
    (DECODER, "model.decoder: reads whole sequences, and data.mode = 'streams' has none"),
    ("model.loss='ctc'", "model.loss: 'ctc' reads whole sequences, and data.mode = 'streams'"),
    (f"{EXAMPLES} & training.stride=4", "training.stride: windows overlap only with data.mode"),
    ("training.stride=99", "training.stride: 99 is more than the window of 12 steps"),
    # the loss and the shape of the output
    (f"{EXAMPLES} & model.loss='ctc' & model.pool='last'", "model.pool: 'ctc' learns labels from"),
    (f"{EXAMPLES} & model.loss='ctc' & {DECODER}", "model.decoder: 'ctc' learns labels from an"),
    (f"{EXAMPLES} & model.loss='mse' & {DECODER}", "model.loss: 'mse' is of values, and a decoder"),
    # parts of the model
    (
        "model.input={kind='one_hot', size=4}",
        "model.input.size: means nothing with",
    ),
    ("model.input={kind='linear'}", "model.input.size: is required with kind = 'linear'"),
    (f"{VALUES} & model.input={{kind='none', size=3}}", "model.input.size: means nothing with"),
    (f"{VALUES} & model.output.tied=true", "model.output.tied: needs an embedding"),
    (
        f"{EXAMPLES} & {DECODER} & model.output.tied=true",
        "model.output.tied: cannot be used",
    ),
    ("model.layers.0.hidden=5 & model.output.tied=true", "model.output.tied: the embedding is 4"),
    ("model.layers=[]", "model.layers: is empty"),
    *[
        (
            f"{EXAMPLES} & model.decoder={{size=3, layers=[{{cell='gru', hidden=4, {key}}}]}}",
            f"model.decoder.layers.0.{key.partition('=')[0]}: {what}",
        )
        for key, what in {
            "bidirectional=true": "is for the layers that read",
            "residual=true": "is for the layers that read",
            "initial='learned'": "means nothing here: a decoder starts from what was read",
        }.items()
    ],
    ("model.layers.0.zoneout={c=0.1}", "model.layers.0.zoneout.c: the cell has no such state"),
    # batches, lanes, workers
    ("training.batch=2 & training.lanes=4", "training.batch: 2 rows do not divide into 4 equal"),
    ("cluster.workers=2", "cluster.workers: 2 workers cannot share 1 lane"),
    ("cluster.workers={min=3, max=2}", "cluster.workers: min = 3 is more than max = 2"),
    ("training.clip={norm=1.0, value=1.0}", "training.clip: give exactly one"),
    # devices
    (
        "training.precision='bf16' & training.device='cpu'",
        "training.precision: 'bf16' has no effect: a CPU computes in full",
    ),
    (
        "training.precision='tf32' & training.dtype='float64'",
        "training.precision: 'tf32' has no effect: nothing is rounded with dtype = 'float64'",
    ),
    ("cluster.gpus=1 & training.device='cpu'", "cluster.gpus: 1 would lie idle with"),
    # readers
    (
        "data.build={reader='characters', files=['a'], valid=0.3, valid_files=['b']}",
        "data.build: settings 'valid' and 'valid_files': both say what the part 'valid' is",
    ),
    (
        "data.build={reader='labelled-text', files=['a'], test=0.3, test_files=['b']}",
        "data.build: settings 'test' and 'test_files': both say what the part 'test' is",
    ),
]

#: What only the columns of the dataset show.
COLUMNS: list[tuple[str, str]] = [
    ("data.target='tokens'", "data.target: 'tokens' is the input itself"),
    ("data.scale='standard'", "data.scale: 'standard' is of columns of values, and there is none"),
    (f"{BINARY} & data.scale='standard'", "data.scale: 'standard' scales the input, which is the"),
    ("data.target='label'", "data.mode: the target 'label' is a list of its own"),
    (f"{EXAMPLES} & data.target='label'", "model.pool: the target 'label' is a list of its own"),
    (f"{EXAMPLES} & model.pool='last'", "model.pool: it is for a target that is a list of its own"),
    (f"{EXAMPLES} & {DECODER}", "model.decoder: it is for a target that is a list of its own"),
    (f"{EXAMPLES} & model.loss='ctc'", "model.loss: it is for a target that is a list of its own"),
    (f"{FORECAST} & data.target='number'", "data.target: 'forecast' learns the steps after a"),
    ("model.loss='mse'", "model.loss: MeanSquaredError wants values"),
    (f"{VALUES} & model.loss='cross_entropy'", "model.loss: CrossEntropy wants classes"),
    (
        "model.loss={name='cross_entropy', ignore=99}",
        "model.loss.ignore: 99 is none of",
    ),
    ("model.input={kind='none'}", "model.input.kind: 'none' does not fit a column of tokens"),
    (f"{VALUES} & model.input={{kind='one_hot'}}", "model.input.kind: 'one_hot' does not fit"),
    ("data.target='classes' & model.output.tied=true", "model.output.tied: the embedding is of 7"),
    (
        f"{EXAMPLES} & data.target='label' & model.pool='last' & model.output.tied=true",
        "model.output.tied: the embedding is of 7 tokens and the output of 3 classes",
    ),
    ("data.input='label'", "column 'label' has no entry for every step"),
    ("model.layers.0={cell='gru', hidden=5, residual=true}", "model.layers: layer1 is residual"),
    (
        f"{EXAMPLES} & data.target='written' & {DECODER} & model.decoder.attention='dot' "
        "& model.layers.0.hidden=5",
        "model.decoder.attention: 'dot' needs a decoder as wide as the encoder",
    ),
    (f"{EXAMPLES} & data.target='written' & model.loss='ctc'", "training.window: CTC reads whole"),
    (
        f"{EXAMPLES} & data.target='classes' & {BOTH}",
        "training.window: a bidirectional layer",
    ),
    (f"{FORECAST} & data.relative='season' & data.period=99", "data.period: a season of 99 steps"),
]

#: What only the entries of the dataset show.
ENTRIES: list[tuple[str, str]] = [
    (f"{BINARY} & data.target='total'", "holds [2.0], and BinaryCrossEntropy learns"),
    (f"{EXAMPLES} & {WHOLE} & data.target='label' & model.loss='ctc'", "holds 0, and CTC keeps"),
    (f"{EXAMPLES} & data.target='label' & {DECODER}", "a decoder keeps 0 and 1 for the begin"),
]

#: What goes together all the same.
RIGHT = [
    "",
    FORECAST,
    f"{FORECAST} & data.horizon=2 & data.period=2 & data.relative='season'",
    f"{FORECAST} & data.target='values' & {BOTH}",
    f"{FORECAST} & data.target='flags' & model.loss='binary_cross_entropy' & data.scale='standard'",
    f"{BINARY} & data.target='flags'",
    f"{BINARY} & data.input='flags'",
    f"{EXAMPLES} & data.target='classes' & {BOTH} & {WHOLE} & model.layers.0.zoneout=0.1",
    f"{EXAMPLES} & data.target='written' & {DECODER} & {BOTH} & {WHOLE} & model.pool='mean'",
    f"{EXAMPLES} & data.target='written' & model.loss='ctc' & {BOTH} & {WHOLE}",
    "model.output.tied=true & model.layers.0.initial='learned'",
    "training.precision='bf16' & training.device='cuda'",
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contradictions") / "d"
    columns = {
        "tokens": Column.tokens(7),
        "classes": Column.tokens(4),
        "values": Column.values(2),
        "flags": Column.values(1),
        "total": Column.values(1),
        "label": Column.tokens(3, own=True),
        "written": Column.tokens(6, own=True),
        "number": Column.values(1, own=True),
    }
    random = np.random.default_rng(0)
    with DatasetWriter(path, columns) as writer:
        for number in range(8):
            row = {
                "tokens": random.integers(0, 7, 18),
                "classes": random.integers(0, 4, 18),
                "values": random.standard_normal((18, 2)),
                "flags": random.integers(0, 2, (18, 1)),
                "total": np.full((18, 1), 2.0 * (number == 1)),
                "label": np.array([number % 3]),
                "written": random.integers(2, 6, 3),
                "number": np.ones((1, 1)),
            }
            writer.append("train", row)
            writer.append("valid", row)
    return path


def raw_job(changes: str, path: str = "d") -> dict[str, Any]:
    raw: dict[str, Any] = {
        "data": {"path": path},
        "model": {
            "input": {"kind": "embedding", "size": 4},
            "layers": [{"cell": "gru", "hidden": 4}],
            "loss": "cross_entropy",
        },
        "training": {"batch": 4, "window": 12, "steps": 1},
    }
    override(raw, changes.split(" & ") if changes else [])
    return raw


@pytest.mark.parametrize(("changes", "sentence"), JOB)
def test_what_the_job_shows(changes: str, sentence: str) -> None:
    with pytest.raises(JobError) as raised:
        read_job(raw_job(changes), REGISTRY)
    (said,) = [one for one in raised.value.errors if sentence in one]
    assert said.startswith("job: ")
    assert "; " in said or "give" in said  # and how to fix it


@pytest.mark.parametrize(("changes", "sentence"), COLUMNS)
def test_what_the_columns_show(dataset: Path, changes: str, sentence: str) -> None:
    job = read_job(raw_job(changes, str(dataset)), REGISTRY)
    opened = open_dataset(dataset)
    with pytest.raises(JobError) as raised:
        make_windows(job, make_model(job, opened, REGISTRY), opened, "train")
    assert sentence in str(raised.value)


@pytest.mark.parametrize(("changes", "sentence"), ENTRIES)
def test_what_the_entries_show(dataset: Path, tmp_path: Path, changes: str, sentence: str) -> None:
    job = read_job(raw_job(changes, str(dataset)), REGISTRY)
    with pytest.raises(DataError) as raised:
        train(job, REGISTRY, out=tmp_path / "run")
    assert sentence in str(raised.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()  # before the first step


@pytest.mark.parametrize("changes", RIGHT)
def test_what_goes_together(dataset: Path, changes: str) -> None:
    job = read_job(raw_job(changes, str(dataset)), REGISTRY)
    assert read_job(copy.deepcopy(job.to_dict()), REGISTRY) == job
    if job.training.device != "cuda":
        opened = open_dataset(dataset)
        make_windows(job, make_model(job, opened, REGISTRY), opened, "train").read(0)


def test_a_binary_target_is_learned_as_it_is(dataset: Path, tmp_path: Path) -> None:
    """Its input is scaled and it is not, and so the loss of constant output 0 is log 2."""
    changes = f"{BINARY} & data.target='flags' & data.scale='standard'"
    raw = raw_job(changes, str(dataset))
    opened = open_dataset(dataset)
    job = read_job(raw, REGISTRY)
    model = make_model(job, opened, REGISTRY)
    assert set(model.scales) == {"values"}
    window = make_windows(job, model, opened, "train").read(0)
    assert set(np.unique(window.target)) == {0.0, 1.0}
    values = opened.split("train").read("values", 0, 8 * 18)
    scaled = (values - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(window.x[:, 0], scaled[: len(window.x)], atol=1e-5)
    output = np.zeros((*window.target.shape[:2], 1), np.float32)
    found = model.loss(output, window.target, window.valid)
    assert float(found.total) / found.count == pytest.approx(np.log(2))


def test_the_jobs_that_come_along_contradict_themselves_nowhere() -> None:
    for path in sorted((Path(__file__).parents[1] / "jobs").glob("*.toml")):
        raw = tomllib.loads(path.read_text())
        try:
            read_job(json.loads(json.dumps(raw)), REGISTRY, path.parent, path.name)
        except RnnfarmError as error:  # pragma: no cover
            pytest.fail(str(error))

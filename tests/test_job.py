"""The job file: what is read, what is filled in, and the sentence for each wrong job."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from rnnfarm.errors import JobError, PluginError, RnnfarmError
from rnnfarm.job import Job, job_schema, load_job, read_job
from rnnfarm.job_reading import override
from rnnfarm.plugins import Registry
from rnnfarm.training.callback import Callback

SMALLEST = """
[data]
path = "dataset"
[model]
input = { kind = "one_hot" }
layers = [{ cell = "lstm", hidden = 8 }]
loss = "cross_entropy"
"""
DESIGN = """
[data]
path = "../data/stdlib"
build = { reader = "python-source" }
[model]
input = { kind = "embedding", size = 64 }
layers = [{ cell = "lstm", hidden = 256 }, { cell = "lstm", hidden = 256, dropout = 0.2 }]
loss = "cross_entropy"
[training]
batch = 32
window = 64
steps = 2000
lanes = 4
optimizer = { name = "adam", lr = 2e-3 }
schedule = { name = "cosine", warmup = 100 }
clip = 1.0
evaluate_every = 500
[cluster]
workers = 2
"""


class Picky(Callback):
    """A callback's settings, as a plugin would declare them."""

    level: Annotated[int, Field(ge=1, le=9)]
    pair: tuple[float, float] = (0.5, 1.0)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.pair[0] > self.pair[1]:
            raise JobError("'pair' must rise")
        if self.level == 9:
            raise RuntimeError("nine")


class Grabbing(Callback):
    name: str = "a key of the job file"


REGISTRY = Registry.load()


@pytest.fixture
def registry() -> Registry:
    return REGISTRY


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def job_file(text: str) -> Path:
        path = tmp_path / "job.toml"
        path.write_text(text)
        return path

    return job_file


def sentences(error: RnnfarmError) -> list[str]:
    return str(error).splitlines()


def test_the_smallest_job_gets_every_default(write: Any, registry: Registry) -> None:
    job = load_job(write(SMALLEST), (), registry)
    assert (job.training.batch, job.training.window, job.training.steps) == (32, 64, 1000)
    assert job.training.optimizer.name == "adam"
    assert job.training.optimizer.settings["lr"] > 0
    assert job.training.schedule.name == "constant"
    assert job.training.clip is None
    assert job.cluster.workers == 1
    assert job.data.mode == "streams"
    assert job.model.layers[0].dropout == 0


def test_the_job_of_the_design_is_read(write: Any, registry: Registry) -> None:
    path = write(DESIGN)
    job = load_job(path, (), registry)
    assert job.data.path == os.path.normpath(path.parent / "../data/stdlib")
    assert job.base == path.parent
    assert job.data.build is not None
    assert job.data.build.reader == "python-source"
    assert job.training.optimizer.settings["lr"] == 2e-3
    assert job.training.schedule.settings["warmup"] == 100
    assert job.training.clip is not None
    assert job.training.clip.norm == 1.0
    optimizer = job.training.optimizer.create(registry)
    assert optimizer.lr == 2e-3


def test_a_resolved_job_reads_back_as_the_same_job(write: Any, registry: Registry) -> None:
    job = load_job(write(DESIGN), ["training.clip={value = 2}"], registry)
    text = tomli_w.dumps(job.to_dict())
    again = read_job(tomllib.loads(text), registry, Path("/elsewhere"))
    assert again == job
    assert tomllib.loads(text)["training"]["optimizer"]["lr"] == 2e-3  # inline, as in a job file


def test_a_uri_is_no_relative_path(write: Any, registry: Registry) -> None:
    job = load_job(write(SMALLEST), ["data.path=s3://bucket/set"], registry)
    assert job.data.path == "s3://bucket/set"


def test_a_relative_job_path_gives_absolute_data_paths(
    write: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(SMALLEST)
    monkeypatch.chdir(path.parent.parent)
    job = load_job(Path(path.parent.name) / "job.toml", (), registry)
    assert job.data.path == str(path.parent / "dataset")


def test_home_in_a_path(write: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    job = load_job(write(SMALLEST), ["data.path=~/sets/one", "data.base=~"], registry)
    assert (job.data.path, job.data.base) == ("/home/me/sets/one", "/home/me")


def test_none_in_a_python_job_is_an_absent_key(registry: Registry) -> None:
    raw = tomllib.loads(SMALLEST)
    raw["training"] = {"stride": None, "clip": None}
    raw["data"]["build"] = None
    job = read_job(raw, registry)
    assert job.training.stride is None
    assert "stride" not in job.to_dict()["training"]


def test_a_python_job_is_not_changed_by_reading_it(registry: Registry) -> None:
    raw = tomllib.loads(DESIGN)
    before = copy.deepcopy(raw)
    read_job(raw, registry)
    assert raw == before


def test_overrides_are_toml_or_text(write: Any, registry: Registry) -> None:
    job = load_job(
        write(SMALLEST),
        [
            "training.steps = 7",
            "training.dtype=float64",
            "model.layers.0.hidden=16",
            "model.loss.reduction='sum'",
            "training.optimizer.lr=0.5",
            "training.callbacks=[{name='early_stopping'}]",
            "cluster.workers={min=1, max=1}",
        ],
        registry,
    )
    assert job.training.steps == 7
    assert job.training.dtype == "float64"
    assert job.model.layers[0].hidden == 16
    assert job.model.loss.settings["reduction"] == "sum"
    assert job.training.optimizer.settings["lr"] == 0.5
    assert job.training.callbacks[0].name == "early_stopping"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.steps", "--set training.steps: write KEY=VALUE, such as training.steps=100"),
        ("=3", "--set =3: write KEY=VALUE, such as training.steps=100"),
        ("a..b=3", "--set a..b=3: write KEY=VALUE, such as training.steps=100"),
        ("model.layers.5.hidden=3", "model.layers has 1 items; count them from 0"),
        ("model.layers.x=3", "model.layers has 1 items; count them from 0"),
        ("data.path.x=3", "data.path is 'dataset', which has no keys"),
        ("training.steps=3\nbatch=4", "training.steps: should be a valid integer"),
    ],
)
def test_a_wrong_override(override: str, sentence: str, write: Any, registry: Registry) -> None:
    with pytest.raises(JobError) as caught:
        load_job(write(SMALLEST), [override], registry)
    assert sentence in str(caught.value)


# (an override, or several joined by " & ", of the smallest job; the sentence after "FILE: ")
WRONG = [
    ("stps=3", "stps: unknown key; did you mean 'training.steps'?"),
    ("xyz=3", "xyz: unknown key; known: cluster, data, model, training"),
    ("steps=3", "steps: unknown key; did you mean 'training.steps'?"),
    ("trainin={}", "trainin: unknown key; did you mean 'training'?"),
    ("training=3", "training: should be a table, not 3"),
    ("data={}", "data.path: is required; give it a value"),
    ("data.path=''", "data.path: should have at least 1 character, not ''"),
    ("data.path=3", "data.path: should be a valid string, not 3"),
    (
        "data.mode='stream'",
        "data.mode: should be 'streams', 'examples' or 'forecast', not 'stream'",
    ),
    ("data.pth='x'", "data.pth: unknown key; did you mean 'path'?"),
    ("data.build={}", "data.build.reader: is required; give it the name of one of the readers"),
    (
        "data.build={reader='bytes', files=['x'], fils=1}",
        "data.build.fils: unknown key; did you mean 'files'?",
    ),
    ("model.layers=[]", "model.layers: is empty; give it at least one layer"),
    ("model.layers=3", "model.layers: should be a list, not 3"),
    ("model.layers=['lstm']", "model.layers.0.hidden: is required; give it a value"),
    (
        "model.layers=[{hidden=3}]",
        "model.layers.0.cell: is required; give it the name of one of the cells",
    ),
    (
        "model.layers.0.hidden=0",
        "model.layers.0.hidden: should be greater than or equal to 1, not 0",
    ),
    ("model.layers.0.hidden=8.0", "model.layers.0.hidden: should be a valid integer, not 8.0"),
    ("model.layers.0.hiden=8", "model.layers.0.hiden: unknown key; did you mean 'hidden'?"),
    ("model.layers.0.dropout=1.0", "model.layers.0.dropout: should be less than 1, not 1.0"),
    ("model.layers.0.dropout=nan", "model.layers.0.dropout: should be a finite number, not nan"),
    (
        "model.layers.0.zoneout='x'",
        "model.layers.0.zoneout: should be a number from 0 to below 1, or a table of such a number "
        "for each state, not 'x'",
    ),
    (
        "model.layers.0.zoneout={q=0.1}",
        "model.layers.0.zoneout.q: the cell has no such state; known: c, h",
    ),
    (
        "model.layers.0.initial='one'",
        "model.layers.0.initial: should be 'zero', 'random' or 'learned', not 'one'",
    ),
    ("model.layers.0.residual=1", "model.layers.0.residual: should be a valid boolean, not 1"),
    (
        "model.layers.0.bidirectional=true",
        "model.layers.0.bidirectional: cannot be used with data.mode = 'streams', where the future "
        "beyond a window is not there to be read backwards; set data.mode = 'examples' or leave it "
        "out",
    ),
    ("model.input={}", "model.input.kind: is required; give it a value"),
    ("model.input.size=3", "model.input.size: means nothing with kind = 'one_hot'; leave it out"),
    (
        "model.input.kind='embedding'",
        "model.input.size: is required with kind = 'embedding'; give it a width",
    ),
    (
        "model.output.tied=true",
        "model.output.tied: needs an embedding to tie the output to, and the input's kind is "
        "'one_hot'; set model.input.kind = 'embedding' or leave it out",
    ),
    (
        "model.output.tied=true & model.input={kind='embedding', size=9}",
        "model.output.tied: the embedding is 9 wide and the last layer's output 8; "
        "set model.input.size = 8 or leave 'tied' out",
    ),
    ("model.output.bia=true", "model.output.bia: unknown key; did you mean 'bias'?"),
    ("model.loss={}", "model.loss.name: is required; give it the name of one of the losses"),
    ("training.batch='x'", "training.batch: should be a valid integer, not 'x'"),
    ("training.steps=0", "training.steps: should be greater than or equal to 1, not 0"),
    ("training.seed=-1", "training.seed: should be greater than or equal to 0, not -1"),
    ("training.dtype='half'", "training.dtype: should be 'float32' or 'float64', not 'half'"),
    ("training.device='gpu'", "training.device: should be 'auto', 'cpu' or 'cuda', not 'gpu'"),
    (
        "training.batch=7 & training.lanes=2",
        "training.batch: 7 rows do not divide into 2 equal lanes; make it a multiple of "
        "training.lanes, such as 8",
    ),
    (
        "training.stride=65",
        "training.stride: 65 is more than the window of 64 steps, so that steps would be left out; "
        "make it at most training.window",
    ),
    ("training.clip=-1", "training.clip.norm: should be greater than 0, not -1"),
    ("training.clip={}", "training.clip: give exactly one of 'norm' and 'value'"),
    ("training.clip={norm=1, value=1}", "training.clip: give exactly one of 'norm' and 'value'"),
    ("training.clip='hard'", "training.clip: should be a table, not 'hard'"),
    ("training.optimizer=3", "training.optimizer: should be a table, not 3"),
    ("training.optimizer.lr='fast'", "training.optimizer.lr: should be a valid number, not 'fast'"),
    ("training.optimizer.lrr=1", "training.optimizer.lrr: unknown key; did you mean 'lr'?"),
    ("training.callbacks='x'", "training.callbacks: should be a list, not 'x'"),
    (
        "training.callbacks=[{name='test_job:Picky'}]",
        "training.callbacks.0.level: is required; give it a value",
    ),
    (
        "training.callbacks=[{name='test_job:Picky', level=10}]",
        "training.callbacks.0.level: should be less than or equal to 9, not 10",
    ),
    (
        "training.callbacks=[{name='test_job:Picky', level=1, pair=[2, 1]}]",
        "training.callbacks.0: 'pair' must rise",
    ),
    (
        "cluster.workers=0",
        "cluster.workers: should be a whole number from 1, or a table { min = …, max = … } of two, "
        "not 0",
    ),
    (
        "cluster.workers=2",
        "cluster.workers: 2 workers cannot share 1 lane; set training.lanes to 2 or more, or use "
        "at most 1",
    ),
    ("cluster.workers={min=2, max=1}", "cluster.workers: min = 2 is more than max = 1; swap them"),
    (
        "cluster.workers={min=2}",
        "cluster.workers: should be a whole number from 1, or a table { min = …, max = … } of two, "
        "not {'min': 2}",
    ),
]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"build": {"reader": "csv", "files": pa.table({"a": [1]})}},
            "data.build.files: is a Table, where a job has text, numbers, lists and tables; ",
        ),
        (
            {"build": {"reader": "numpy", "files": [np.ones((3, 1))]}},
            "data.build.files.0: is a ndarray, where a job has text",
        ),
        (
            {"build": {"reader": "numpy", "files": open}},
            "data.build.files: is a builtin_function_or",
        ),
        ({"build": b"csv"}, "data.build: is a bytes, where"),
        ({"path": "da\0ta"}, "data.path: holds the character NUL, which no name has; take it out"),
        ({"horizon": 10**400}, "data.horizon: is an integer of more than 1,000 bits; correct it"),
    ],
)
def test_what_no_job_file_could_hold(
    change: dict[str, Any], sentence: str, registry: Registry
) -> None:
    raw = tomllib.loads(SMALLEST)
    raw["data"] |= change
    with pytest.raises(JobError) as caught:
        read_job(raw, registry)
    (found,) = sentences(caught.value)
    assert found.startswith(f"job: {sentence}")
    if "where a job has" in sentence:
        assert found.endswith("as Parquet (to_parquet), and name the file")
    with pytest.raises(JobError, match=r"CSV: files(\.0)?: is a"):
        registry.get("readers", "csv")(files=[pa.table({})])


def test_scalars_of_numpy_paths_and_dates_are_what_they_are(registry: Registry) -> None:
    raw = tomllib.loads(SMALLEST)
    raw["data"]["path"] = Path("here")
    raw["training"] = {"steps": np.int64(7), "optimizer": {"name": "sgd", "lr": np.float32(0.5)}}
    job = read_job(raw, registry)
    assert job.training.steps == 7
    assert job.training.optimizer.settings["lr"] == 0.5
    assert job.data.path == str(Path.cwd() / "here")


def test_a_table_within_itself(registry: Registry) -> None:
    raw = tomllib.loads(SMALLEST)
    raw["data"]["build"] = raw
    with pytest.raises(JobError, match=r"^job: its tables or lists are nested too deeply$"):
        read_job(raw, registry)


@pytest.mark.parametrize("text", [f"a = {'1' * 5000}", f"{'.'.join(['a'] * 3000)} = 1"])
def test_texts_that_python_does_not_read(text: str, write: Any, registry: Registry) -> None:
    with pytest.raises(JobError, match=r"thousands of digits|nested too deeply"):
        load_job(write(text), (), registry)


@pytest.mark.parametrize(("overrides", "sentence"), WRONG, ids=[w[0] for w in WRONG])
def test_a_wrong_job_gets_one_sentence(
    overrides: str, sentence: str, write: Any, registry: Registry
) -> None:
    path = write(SMALLEST)
    with pytest.raises(JobError) as caught:
        load_job(path, overrides.split(" & "), registry)
    assert sentences(caught.value) == [f"{path}: {sentence}"]
    assert caught.value.exit_code == 2


MISSING_PARTS = [
    (
        "model.layers.0.cell='lstn'",
        "model.layers.0.cell: there is no cell 'lstn'; did you mean 'lstm'?",
    ),
    ("model.loss='cross'", "model.loss.name: there is no loss 'cross';"),
    ("training.optimizer='admw'", "training.optimizer.name: there is no optimizer 'admw'; did you"),
    ("training.kernel='warp'", "training.kernel: there is no kernel 'warp'; known: "),
    (
        "data.build.reader='byte'",
        "data.build.reader: there is no reader 'byte'; did you mean 'bytes'?",
    ),
    (
        "training.callbacks=['json:dumps']",
        "training.callbacks.0.name: json:dumps is <function dumps",
    ),
    ("training.callbacks=['test_job:Grabbing']", "test_job.Grabbing declares the setting 'name'"),
    (
        "training.callbacks=[{name='test_job:Picky', level=9}]",
        "training.callbacks.0.name: test_job.Picky cannot be made: RuntimeError: nine (test_job.py",
    ),
]


@pytest.mark.parametrize(("override", "start"), MISSING_PARTS, ids=[w[0] for w in MISSING_PARTS])
def test_a_part_that_is_not_there_is_a_plugin_error(
    override: str, start: str, write: Any, registry: Registry
) -> None:
    with pytest.raises(PluginError) as caught:
        load_job(write(SMALLEST), [override], registry)
    (sentence,) = sentences(caught.value)
    assert start in sentence
    assert caught.value.exit_code == 3


def test_all_errors_are_listed_at_once(write: Any, registry: Registry) -> None:
    wrong = (
        "stps=1 & data.mode='x' & model.layers.0.cell='lstn' & model.output.bia=1 & "
        "training.batch=7 & training.lanes=2 & training.optimizer.lrr=1 & cluster.workers='many'"
    )
    with pytest.raises(JobError) as caught:
        load_job(write(SMALLEST), wrong.split(" & "), registry)
    paths = [s.split(": ")[1] for s in sentences(caught.value)]
    assert sorted(paths) == [
        "cluster.workers",
        "data.mode",
        "model.layers.0.cell",
        "model.output.bia",
        "stps",
        "training.batch",
        "training.optimizer.lrr",
    ]


def test_an_empty_job_names_all_that_is_required(write: Any, registry: Registry) -> None:
    with pytest.raises(JobError) as caught:
        load_job(write(""), (), registry)
    paths = [s.split(": ")[1] for s in sentences(caught.value)]
    assert paths == ["data.path", "model.input", "model.layers", "model.loss"]


def test_a_file_that_is_no_toml_names_its_line(write: Any, registry: Registry) -> None:
    with pytest.raises(JobError, match=r"job\.toml: is no valid TOML: .*line 2"):
        load_job(write("[data]\npath =\n"), (), registry)


def test_a_byte_order_mark_is_skipped(write: Any, registry: Registry) -> None:
    path = write(SMALLEST)
    plain = load_job(path, registry=registry)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_job(path, registry=registry) == plain


def test_a_file_that_is_not_there(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(JobError, match="there is no such job file; check the path"):
        load_job(tmp_path / "nowhere.toml", (), registry)
    with pytest.raises(JobError, match="is a folder; give the job file in it"):
        load_job(tmp_path, (), registry)


def test_a_file_that_is_no_text(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "job.toml").write_bytes(b"a = 1\n\xff\xfe")
    with pytest.raises(JobError, match=r"is no UTF-8 text \(byte 6\)"):
        load_job(tmp_path / "job.toml", (), registry)


def test_the_schema_holds_the_settings_of_the_parts(registry: Registry) -> None:
    schema = job_schema(registry)
    assert json.loads(json.dumps(schema)) == schema
    definitions = schema["$defs"]
    optimizers = definitions["OptimizerTable"]["anyOf"]
    (adam,) = [o for o in optimizers if o.get("title") == "adam"]
    assert adam["properties"]["name"] == {"const": "adam"}
    assert "lr" in adam["properties"]
    assert adam["description"].startswith("Running means of gradients")
    assert adam["additionalProperties"] is False
    cells = {c.get("title") for c in definitions["LayerTable"]["anyOf"]}
    assert cells >= set(registry.names("cells"))


def test_the_schema_agrees_with_the_reader_on_right_and_wrong_jobs(registry: Registry) -> None:
    validator = jsonschema.Draft202012Validator(job_schema(registry))
    assert not list(validator.iter_errors(tomllib.loads(SMALLEST)))
    assert not list(validator.iter_errors(tomllib.loads(DESIGN)))
    wrong = tomllib.loads(DESIGN)
    wrong["training"]["optimizer"]["lrr"] = 1
    assert list(validator.iter_errors(wrong))


def test_a_file_that_is_nested_too_deeply(write: Any, registry: Registry) -> None:
    with pytest.raises(JobError, match="nested too deeply"):
        load_job(write("a = " + "[" * 100_000), (), registry)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.dates()
    | st.sampled_from(
        ["lstm", "adam", "next", "one_hot", "test_job:Picky", "os:getcwd", ":", "a:"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    *("data", "data.path", "data.base", "data.build", "data.build.reader", "data.build.max_bytes"),
    *("model", "model.input", "model.input.size", "model.layers", "model.layers.0"),
    *("model.layers.1", "model.layers.1.cell", "model.layers.0.zoneout", "model.layers.0.hidden"),
    *("model.layers.0.extra", "model.output", "model.output.tied", "model.loss", "model.loss.name"),
    *("training", "training.batch", "training.lanes", "training.stride", "training.clip"),
    *("training.clip.norm", "training.optimizer", "training.optimizer.lr", "training.schedule"),
    *("training.callbacks", "training.kernel", "cluster", "cluster.workers", "cluster.workers.min"),
    *("", "unknown", "unknown.deeper"),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), ANYTHING), max_size=4))
def test_whatever_a_job_says_it_is_read_or_refused_in_sentences(
    changes: list[tuple[str, Any]],
) -> None:
    raw = tomllib.loads(DESIGN)
    for place, value in changes:
        put(raw, place.split("."), value)
    job, error = read_or_error(raw)
    if error is not None:
        assert error.exit_code in (2, 3)
        assert all(line.startswith("job: ") for line in str(error).splitlines())
    if job is not None:
        text = tomli_w.dumps(job.to_dict())
        assert read_job(tomllib.loads(text), REGISTRY, Path("/elsewhere")) == job


def read_or_error(raw: dict[str, Any]) -> tuple[Job | None, RnnfarmError | None]:
    try:
        return read_job(raw, REGISTRY), None
    except RnnfarmError as error:
        return None, error


def put(raw: Any, path: list[str], value: Any) -> None:
    """Set a value at a path, as far as it is there."""
    for key in path[:-1]:
        if isinstance(raw, list):
            raw = raw[int(key)] if key.isdecimal() and int(key) < len(raw) else None
        elif isinstance(raw, dict):
            raw = raw.get(key)
    if isinstance(raw, dict):
        raw[path[-1]] = value
    elif isinstance(raw, list) and path[-1].isdecimal() and int(path[-1]) < len(raw):
        raw[int(path[-1])] = value


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(max_size=12) | st.builds("{}={}".format, st.sampled_from(PLACES), st.text()))
)
def test_whatever_an_override_says_it_is_read_or_refused_in_sentences(texts: list[str]) -> None:
    raw = tomllib.loads(DESIGN)
    with contextlib.suppress(JobError, PluginError):
        override(raw, texts)
        read_job(raw, REGISTRY)

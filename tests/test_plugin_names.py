"""Names that two plugins claim: what a job may write, and what a run keeps."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from plugin_tools import install
from training_tools import token_job, write_tokens

from rnnfarm.errors import JobError
from rnnfarm.job import read_job
from rnnfarm.plugins import Registry
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.session import train

CELL = """
    class Twin(Cell):
        def step(self, x, h):
            return tanh({body})

    @hookimpl
    def rnnfarm_cells():
        return {{"twin": Twin, "lstm": Twin}}
"""
FIRST, SECOND = CELL.format(body="affine(x, h)"), CELL.format(body="affine(x, h) - h")


def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    install(tmp_path, monkeypatch, "b-cells", FIRST)
    install(tmp_path, monkeypatch, "a-cells", SECOND)
    return Registry.load()


def test_a_name_that_two_plugins_claim_names_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = both(tmp_path, monkeypatch)
    with pytest.raises(JobError) as raised:
        registry.get("cells", "twin")
    assert str(raised.value).endswith("; write 'a-cells:twin' or 'b-cells:twin'")
    assert registry.get("cells", "b-cells:twin").__module__ == "b_cells"
    assert registry.get("cells", "A_cells:twin").__module__ == "a_cells"
    assert {"a-cells:twin", "b-cells:twin"} <= set(registry.names("cells"))
    assert "twin" not in registry.names("cells")
    first, second = [p for p in registry.plugins if p.distribution.endswith("-cells")]
    assert (first.distribution, second.distribution) == ("a-cells", "b-cells")
    assert "write 'a-cells:twin' or 'b-cells:twin' in a job" in "".join(second.clashes)


def test_a_built_in_part_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = both(tmp_path, monkeypatch)
    assert registry.get("cells", "lstm").__module__ == "rnnfarm.builtin.cells"
    assert registry.stored_name("cells", "rnnfarm:lstm") == "lstm"
    assert registry.stored_name("cells", "B_cells:lstm") == "b-cells:lstm"
    assert registry.stored_name("cells", "module:Name") == "module:Name"


def test_an_ambiguous_job_is_refused_with_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = both(tmp_path, monkeypatch)
    raw = token_job(tmp_path / "data", model={"layers": [{"cell": "twin", "hidden": 3}]})
    with pytest.raises(JobError) as raised:
        read_job(raw, registry)
    (sentence,) = raised.value.errors
    assert "model.layers.0.cell: the cell 'twin' is claimed by plugin 'a-cells' 1.0" in sentence
    assert "'a-cells:twin' or 'b-cells:twin'" in sentence


def test_a_run_keeps_the_plugin_of_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "b-cells", FIRST)
    write_tokens(tmp_path / "data", {"train": [60, 40], "valid": [30]})
    raw = token_job(tmp_path / "data", model={"layers": [{"cell": "twin", "hidden": 3}]}, steps=2)
    run = tmp_path / "run"
    registry = Registry.load()
    train(read_job(raw, registry), registry, out=run)
    kept = tomllib.loads((run / "job.toml").read_text())
    assert kept["model"]["layers"][0]["cell"] == "b-cells:twin"
    assert kept["training"]["optimizer"]["name"] == "adam"
    before = evaluate_run(run, registry)["loss"]
    registry = both(tmp_path, monkeypatch)
    assert evaluate_run(run, registry)["loss"] == before
    raw["model"]["layers"][0]["cell"] = "b-cells:twin"
    raw["training"]["steps"] = 3
    assert train(read_job(raw, registry), registry, out=run, resume=True).steps == 3

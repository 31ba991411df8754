"""What must hold of the ``init`` keys of a job."""

from __future__ import annotations

from collections.abc import Iterator

from rnnfarm import job_tables as tables
from rnnfarm.equations.initial import check_text
from rnnfarm.job_tables import InitKey

Problem = tuple[str, str]


def init_checks(model: tables.ModelTable) -> list[Problem]:
    """Return what is wrong with the ``init`` keys of a model: unknown or badly written ones, and
    those of parts that have no such parameters."""
    found: list[Problem] = []
    for path, key, absent in _keys(model):
        for place, kind, text in _texts(path, key):
            if kind in absent:
                found.append((place, absent[kind]))
                continue
            try:
                check_text(text, bias=kind == "bias")
            except ValueError as error:
                found.append((place, str(error)))
    return found


def _texts(path: str, key: InitKey) -> Iterator[tuple[str, str, str]]:
    """Yield the path, the kind of parameters and the text of each initialiser of a key."""
    if isinstance(key, str):
        yield path, "weight", key
    elif key is not None:
        for kind, text in key.model_dump(exclude_none=True).items():
            yield f"{path}.{kind}", kind, text


def _keys(model: tables.ModelTable) -> Iterator[tuple[str, InitKey, dict[str, str]]]:
    """Yield the path and value of each ``init``, and what its part has not, with the reason."""
    yield "model.init", model.init, {}
    yield "model.input.init", model.input.init, _of_input(model.input.kind)
    for i, layer in enumerate(model.layers):
        yield f"model.layers.{i}.init", layer.init, {}
    why = None if model.pool == "attention" else "only pool = 'attention' has weights; leave it out"
    yield "model.pool_init", model.pool_init, _lacking(why)
    yield "model.output.init", model.output.init, _of_output(model)
    decoder = model.decoder
    if decoder is None:
        return
    yield "model.decoder.init", decoder.init, {}
    yield "model.decoder.input_init", decoder.input_init, _of_input("embedding")
    yield "model.decoder.bridge_init", decoder.bridge_init, _lacking(None)
    why = "there is no attention (model.decoder.attention = 'none'); leave it out"
    lacking = _lacking(why if decoder.attention == "none" else None)
    lacking.setdefault("bias", "an attention has no bias; leave it out")
    yield "model.decoder.attention_init", decoder.attention_init, lacking
    yield "model.decoder.output_init", decoder.output_init, _lacking(None)
    for i, layer in enumerate(decoder.layers):
        yield f"model.decoder.layers.{i}.init", layer.init, {}


def _lacking(everything: str | None) -> dict[str, str]:
    """What a part other than a cell has not; all of it where there is a reason for that."""
    if everything is not None:
        return dict.fromkeys(tables.InitTable.model_fields, everything)
    return {"recurrent": "it has no recurrent weights; write weight = … in its place"}


def _of_input(kind: str) -> dict[str, str]:
    if kind in ("one_hot", "none"):
        return _lacking(f"an input of kind = '{kind}' has no weights; leave it out")
    lacking = _lacking(None)
    if kind == "embedding":
        lacking["bias"] = "an embedding has no bias; leave it out"
    return lacking


def _of_output(model: tables.ModelTable) -> dict[str, str]:
    if model.decoder is not None:
        return _lacking("with a decoder the output is the decoder's; set model.decoder.output_init")
    lacking = _lacking(None)
    if model.output.tied:
        lacking["weight"] = "the weights of a tied output are the embedding's; set model.input.init"
    if not model.output.bias:
        lacking["bias"] = "the output has no bias (model.output.bias = false); leave it out"
    return lacking

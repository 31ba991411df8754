"""The ``init`` keys of a job: what they mean for each layer, and what must hold of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rnnfarm import job_tables as tables
from rnnfarm.equations.initial import Init, check_text
from rnnfarm.job_tables import InitKey
from rnnfarm.plugins import Registry

Problem = tuple[str, str]
FORGET = "forget_bias"


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


def initial(model: tables.ModelTable) -> dict[str, Init]:
    """Return how the parameters of each layer of the network start, by the layer's name."""
    given: dict[str, list[InitKey]] = {
        "input": [model.input.init],
        "pool": [model.pool_init],
        "output": [model.output.init],
    }
    given |= {f"layer{k}": [layer.init] for k, layer in enumerate(model.layers, 1)}
    decoder = model.decoder
    if decoder is not None:
        own = {
            "input": decoder.input_init,
            "bridge": decoder.bridge_init,
            "attention": decoder.attention_init,
        }
        own |= {f"layer{k}": layer.init for k, layer in enumerate(decoder.layers, 1)}
        given |= {f"decoder.{name}": [one, decoder.init] for name, one in own.items()}
        given["output"] = [decoder.output_init, decoder.init]
    return {name: _over([*keys, model.init]) for name, keys in given.items()}


def _over(keys: Sequence[InitKey]) -> Init:
    """Return what the first of them that says something says."""
    found = Init()
    for key in keys:
        found = found.over(
            Init.read(key.model_dump() if isinstance(key, tables.InitTable) else key)
        )
    return found


def forget_checks(model: tables.ModelTable, registry: Registry) -> list[Problem]:
    """Return where a layer sets ``forget_bias``, and its ``init`` starts all biases otherwise."""
    starts = initial(model)
    layers = {f"layer{k}": layer for k, layer in enumerate(model.layers, 1)}
    paths = {f"layer{k + 1}": f"model.layers.{k}" for k in range(len(model.layers))}
    for k, layer in enumerate(model.decoder.layers if model.decoder is not None else []):
        layers[f"decoder.layer{k + 1}"] = layer
        paths[f"decoder.layer{k + 1}"] = f"model.decoder.layers.{k}"
    found = []
    for name, layer in layers.items():
        bias = starts[name].bias
        default = getattr(registry.get("cells", layer.cell), FORGET, None)
        given = layer.settings.get(FORGET, default)
        if given != default and bias not in (None, "default", "keras"):
            what = f"the biases start as init says, which is {bias!r}; leave one of the two out"
            found.append((f"{paths[name]}.{FORGET}", what))
    return found

"""How an initialiser is written, and which one each parameter of a model gets.

An initialiser is a text, ``NAME`` or ``NAME:NUMBER``; without its numbers one takes 1 for each:

===================== ==========================================================================
``zeros ones``        constants
``constant:V``        every element V
``linspace:LOW:HIGH`` from LOW at the first unit to HIGH at the last
``uniform:L``         uniform in [-L, L]
``triangular:L``      in [-L, L] and most often near 0: the sum of two of ``uniform:L/2``
``normal:S``          normal with standard deviation S
``chrono:T``          log of uniform in [1, T - 1]: a forget bias for memories of up to T steps
                      (Tallec and Ollivier 2018)
``glorot_uniform``    uniform, limit sqrt(6 / (inputs + outputs)) (Glorot and Bengio 2010)
``glorot_normal``     normal, variance 2 / (inputs + outputs)
``he_uniform``        uniform, limit sqrt(6 / inputs) (He et al. 2015)
``he_normal``         normal, standard deviation sqrt(2 / inputs)
``lecun_uniform``     uniform, limit sqrt(3 / inputs) (LeCun et al. 1998)
``orthogonal:GAIN``   GAIN times a random orthogonal matrix (Saxe et al. 2014)
``identity:GAIN``     GAIN on the diagonal (Le et al. 2015)
===================== ==========================================================================

A job may also name the defaults of a framework (``FRAMEWORKS``), or ``default`` for what a part
has where nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from rnnfarm.equations.graph import Parameter, Share
from rnnfarm.errors import suggestion

#: How many numbers each initialiser takes.
NUMBERS = {
    "zeros": 0,
    "ones": 0,
    "constant": 1,
    "linspace": 2,
    "uniform": 1,
    "triangular": 1,
    "normal": 1,
    "chrono": 1,
    "glorot_uniform": 0,
    "glorot_normal": 0,
    "he_uniform": 0,
    "he_normal": 0,
    "lecun_uniform": 0,
    "orthogonal": 1,
    "identity": 1,
}
#: Those that are for matrices alone.
OF_MATRICES = ("orthogonal", "identity")
#: Those whose number must be above some other.
ABOVE = {"uniform": 0.0, "triangular": 0.0, "normal": 0.0, "chrono": 2.0}


def parse(text: str) -> tuple[str, list[float]]:
    """Return an initialiser's name and numbers; ValueError says what is wrong with it."""
    name, *texts = text.split(":")
    if name not in NUMBERS:
        raise ValueError(f"there is no initialiser {text!r}; {suggestion(name, NUMBERS)}")
    wanted = NUMBERS[name]
    try:
        numbers = [float(each) for each in texts] or [1.0] * wanted
    except ValueError:
        numbers = []
    if len(numbers) != wanted or not all(map(math.isfinite, numbers)):
        form = ":".join([name, *["NUMBER"] * wanted])
        raise ValueError(f"the initialiser {text!r} is written {form}")
    if name in ABOVE and not numbers[0] > ABOVE[name]:
        raise ValueError(f"the initialiser {text!r} takes a number above {ABOVE[name]:g}")
    return name, numbers


def _pytorch(parameter: Parameter) -> tuple[str, ...]:
    """``torch.nn.Embedding``, ``Linear``, ``RNN``, ``GRU`` and ``LSTM``, as their pages say."""
    if parameter.role == "embedding":
        return ("normal:1",)
    limit = parameter.fan**-0.5
    if parameter.role == "joint_bias":  # of two biases that PyTorch adds up
        return (f"triangular:{2 * limit!r}",)
    return (f"uniform:{limit!r}",)


def _keras(parameter: Parameter) -> tuple[str, ...]:
    """``keras.layers.Embedding``, ``Dense``, ``SimpleRNN``, ``GRU`` and ``LSTM``.

    The gates of a layer are one matrix (``Init.started``). Biases start as the part says: 0, and a
    forget bias 1.
    """
    by_role = {
        "embedding": ("uniform:0.05",),
        "weight": ("glorot_uniform",),
        "recurrent": ("orthogonal",),
    }
    return by_role.get(parameter.role, parameter.init)


#: Those that draw one matrix for all gates of a layer, for the inputs and for the states.
JOINING = ("keras",)
FRAMEWORKS: Mapping[str, Callable[[Parameter], tuple[str, ...]]] = {
    "pytorch": _pytorch,
    "keras": _keras,
    "default": lambda parameter: parameter.init,
}


def check_text(text: str, bias: bool = False) -> None:
    """Raise ValueError with a sentence where a job's ``init`` is none."""
    if text in FRAMEWORKS:
        return
    name = text.split(":")[0]
    if name not in NUMBERS:
        near = suggestion(name, [*NUMBERS, *FRAMEWORKS])
        raise ValueError(f"there is no initialiser {text!r}; {near}")
    parse(text)
    if bias and name in OF_MATRICES:
        raise ValueError(f"{text!r} is for matrices, and a bias is a vector; take zeros, say")


@dataclass(frozen=True)
class Init:
    """How the parameters of a part start; None leaves a part's own initialisers.

    Attributes:
        weight: of embeddings and of matrices that inputs are multiplied by.
        recurrent: of matrices that states are multiplied by.
        bias: of biases.

    Other vectors of a cell (peepholes, gains) start as its equations say.
    """

    weight: str | None = None
    recurrent: str | None = None
    bias: str | None = None

    @staticmethod
    def read(given: str | Mapping[str, str | None] | None) -> Init:
        """Return what an ``init`` of a job means: a text is for all weights, and a framework's
        name for all biases too; a mapping has the attributes' names as its keys."""
        if isinstance(given, str):
            return Init(given, given, given if given in FRAMEWORKS else None)
        named = dict(given or {})
        return Init(**{"recurrent": named.get("weight"), **_without_none(named)})

    def over(self, other: Init) -> Init:
        """Return these, and what ``other`` says where these say nothing."""
        return Init(
            self.weight or other.weight,
            self.recurrent or other.recurrent,
            self.bias or other.bias,
        )

    def started(self, parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """Return the parameters of a part as they start under these."""
        found = {name: self.applied(parameter) for name, parameter in parameters.items()}
        wholes: dict[tuple[str, str, int], list[str]] = {}
        for name, parameter in found.items():
            if parameter.gates and self._text(parameter) in JOINING:
                kind = parameter.gates, parameter.role, parameter.shape[0]
                wholes.setdefault(kind, []).append(name)
        for names in wholes.values():
            ends = list(accumulate((found[name].shape[1] for name in names), initial=0))
            for name, first in zip(names, ends[:-1], strict=True):
                found[name] = replace(found[name], share=Share(names[0], first, ends[-1]))
        return found

    def _text(self, parameter: Parameter) -> str | None:
        """What these say of a parameter."""
        by_role = {
            "embedding": self.weight,
            "weight": self.weight,
            "recurrent": self.recurrent,
            "bias": self.bias,
            "joint_bias": self.bias,
        }
        return by_role.get(parameter.role)

    def applied(self, parameter: Parameter) -> Parameter:
        """Return a parameter as it starts by itself under these."""
        text = self._text(parameter)
        if text is None:
            return parameter
        if text in FRAMEWORKS:
            return replace(parameter, init=FRAMEWORKS[text](parameter))
        return replace(parameter, init=(text,) * len(parameter.init))


def _without_none(named: Mapping[str, str | None]) -> dict[str, str]:
    return {key: text for key, text in named.items() if text is not None}

"""One recurrent layer on plain arrays, for notebooks and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnfarm.equations.initial import Init, check_text
from rnnfarm.equations.parts import Cell
from rnnfarm.errors import JobError, suggestion
from rnnfarm.kernels.choose import KernelChoice, installed_kernels
from rnnfarm.nn.arena import Layout
from rnnfarm.nn.initialize import initial_values
from rnnfarm.nn.layer import FloatArray, Memory, Pass
from rnnfarm.nn.recurrent import Recurrence, RecurrentLayer

Arrays = dict[str, FloatArray]


class Saved:
    """What ``backward`` needs of a ``forward``; each forward makes its own."""

    def __init__(self, run: Pass, backward: Any, shape: tuple[int, ...]) -> None:
        self.run = run
        self.backward = backward
        #: That of the output, ``(T, B, H)``.
        self.shape = shape


class Recurrent:
    """A cell over a window of steps.

    Args:
        cell: the cell, such as ``LSTM()``, its class, or the name of one, such as ``"lstm"``.
        inputs: the input's width I.
        hidden: the hidden width H.
        dtype: ``float32`` or ``float64``.
        kernel: a kernel's name, or ``auto``.
        initial, zoneout, recurrent_dropout: as in ``rnnfarm.nn.recurrent.Recurrence``.
        init: how ``init`` starts the parameters, as a job's ``init``: ``pytorch``, say, or
            ``{"recurrent": "identity"}``; as the cell's equations say if absent.

    >>> layer = Recurrent("lstm", inputs=3, hidden=4)
    >>> parameters = layer.init(seed=0)
    >>> y, states, saved = layer.forward(parameters, np.zeros((5, 2, 3)))   # (T, B, I)
    >>> y.shape
    (5, 2, 4)
    """

    def __init__(
        self,
        cell: Cell | type[Cell] | str,
        inputs: int,
        hidden: int,
        dtype: str = "float32",
        kernel: str = "auto",
        *,
        initial: str = "zero",
        zoneout: float | Mapping[str, float] = 0.0,
        recurrent_dropout: float = 0.0,
        init: str | Mapping[str, str] | None = None,
    ) -> None:
        from rnnfarm.plugins import Registry

        registry = Registry.load()
        kind = registry.get("cells", cell) if isinstance(cell, str) else cell
        made = kind() if isinstance(kind, type) else kind
        if not isinstance(made, Cell):
            raise JobError(f"cell: {made!r} is no cell; give one, such as LSTM(), or its name")
        for name, width in (("inputs", inputs), ("hidden", hidden)):
            if not isinstance(width, int) or width < 1:
                raise JobError(f"{name}: {width!r} is no width; give a whole number above 0")
        if dtype not in ("float32", "float64"):
            raise JobError(f"dtype: {dtype!r}; give 'float32' or 'float64'")
        self.inputs = inputs
        self.dtype = dtype
        self._init = _checked_init(init)
        self._initial = initial
        recurrence = Recurrence(initial, zoneout, recurrent_dropout)
        choice = KernelChoice(installed_kernels(registry), kernel, "auto", dtype)
        self._device = choice.where
        self._layer = RecurrentLayer("layer", made, inputs, hidden, recurrence, choice)
        #: The plan of the cell, and the name of the kernel that was chosen.
        self.plan = self._layer.plan
        self.kernel = self._layer.kernel_name

    def init(self, seed: int) -> Arrays:
        """Initial parameters, by name."""
        layout = Layout.of(self._init.started(self._layer.plan.parameters))
        return {
            name: initial_values(parameter, name, seed).astype(self.dtype)
            for name, parameter in layout.parameters.items()
        }

    def forward(
        self,
        params: Mapping[str, FloatArray],
        x: npt.ArrayLike,
        state: Mapping[str, npt.ArrayLike] | None = None,
        mask: npt.ArrayLike | None = None,
        reset: npt.ArrayLike | None = None,
        *,
        training: bool = True,
        seed: int = 0,
        step: int = 0,
    ) -> tuple[FloatArray, Arrays, Saved]:
        """Run a window.

        Args:
            params: as ``init`` gives them.
            x: ``(T, B, I)``.
            state: the states before the first step, ``(B, H)`` each; the initial ones if absent.
            mask: ``(T, B)``; where it is false a state keeps its value.
            reset: ``(T, B)``; where it is true a step starts from the initial state.
            training: whether zoneout and dropout draw.
            seed, step: the key of what they draw.

        Returns:
            The output ``(T, B, H)``, the states after the last step, and what ``backward`` takes.

        Raises JobError for shapes that do not fit.
        """
        x = np.ascontiguousarray(x, self.dtype)
        if x.ndim != 3 or x.shape[2] != self.inputs or 0 in x.shape:
            raise JobError(
                f"x has shape {x.shape}; it must be (T, B, {self.inputs}), none of them 0"
            )
        steps, rows = x.shape[:2]
        resets = _flags("reset", reset, steps, rows)
        if state is None and self._initial != "zero":
            resets = np.zeros((steps, rows, 1), np.bool_) if resets is None else resets.copy()
            resets[0] = True
        run = Pass(
            training=training,
            seed=seed,
            step=step,
            lane=0,
            mask=self._put(_flags("mask", mask, steps, rows)),
            reset=self._put(resets),
            states={} if state is None else {"layer": self._on_device(self._states(state, rows))},
            carry=steps,
            memory=Memory(self._device),
        )
        prefixed = self._on_device(self._prefixed(params))
        output, backward = self._layer.forward(prefixed, self._put(x), run)
        states = {name: self._device.get(v) for name, v in run.new_states["layer"].items()}
        return self._device.get(output), states, Saved(run, backward, output.shape)

    def backward(
        self,
        saved: Saved,
        d_output: npt.ArrayLike,
        d_state: Mapping[str, npt.ArrayLike] | None = None,
    ) -> tuple[FloatArray, Arrays, Arrays]:
        """The derivative of a ``forward`` that was run with ``training=True``.

        Args:
            saved: what that forward gave; it may be used again.
            d_output: gradient of the output, ``(T, B, H)``.
            d_state: gradient of the states after the last step; an absent one is zero.

        Returns:
            The gradients of ``x``, of the parameters by name, and of the states before the first
            step by name.
        """
        d_y = np.ascontiguousarray(d_output, self.dtype)
        if d_y.shape != saved.shape:
            raise JobError(
                f"d_output has shape {d_y.shape}; it must be {saved.shape}, as the output"
            )
        gradients = {
            name: np.empty(p.shape, self.dtype) for name, p in self.plan.parameters.items()
        }
        d_states = None
        if d_state is not None:
            rows = saved.shape[1]
            zeros = {n: np.zeros((rows, w), self.dtype) for n, w in self.plan.states.items()}
            d_states = self._on_device(self._states({**zeros, **d_state}, rows))
        on_device = self._on_device(self._prefixed(gradients))
        d_x, d_initial = saved.backward.run(self._put(d_y), on_device, d_states)
        get = self._device.get
        found = {name: get(on_device[f"layer.{name}"]) for name in gradients}
        return get(d_x).copy(), found, {k: get(v).copy() for k, v in d_initial.items()}

    def _put(self, array: Any) -> Any:
        return None if array is None else self._device.put(array)

    def _on_device(self, arrays: Mapping[str, Any]) -> Arrays:
        return {name: self._device.put(array) for name, array in arrays.items()}

    def _states(self, given: Mapping[str, npt.ArrayLike], rows: int) -> Arrays:
        if not isinstance(given, Mapping) or given.keys() != self.plan.states.keys():
            names = sorted(given) if isinstance(given, Mapping) else type(given).__name__
            raise JobError(
                f"states {names} were given; the cell's are {list(self.plan.states)}, each by name"
            )
        arrays = {name: np.ascontiguousarray(v, self.dtype) for name, v in given.items()}
        for name, width in self.plan.states.items():
            if arrays[name].shape != (rows, width):
                raise JobError(
                    f"the state {name!r} has shape {arrays[name].shape}; it must be "
                    f"({rows}, {width}), rows by units"
                )
        return arrays

    def _prefixed(self, params: Mapping[str, FloatArray]) -> Arrays:
        """The parameters as the layer calls them, checked."""
        for name, parameter in self.plan.parameters.items():
            found = np.shape(params[name]) if name in params else "no shape, being absent"
            if found != parameter.shape:
                raise JobError(f"the parameter {name!r} has {found}; it must be {parameter.shape}")
        return {f"layer.{name}": params[name] for name in self.plan.parameters}


def _checked_init(given: str | Mapping[str, str] | None) -> Init:
    kinds = [field.name for field in fields(Init)]
    named = {"weight": given} if isinstance(given, str) else dict(given or {})
    try:
        for kind, text in named.items():
            if kind not in kinds:
                raise ValueError(f"there are no parameters {kind!r}; {suggestion(kind, kinds)}")
            check_text(text, bias=kind == "bias")
    except ValueError as error:
        raise JobError(f"init: {error}") from None
    return Init.read(given)


def _flags(
    what: str, given: npt.ArrayLike | None, steps: int, rows: int
) -> npt.NDArray[np.bool_] | None:
    if given is None:
        return None
    flags = np.asarray(given, np.bool_)
    if flags.shape != (steps, rows):
        raise JobError(f"{what} has shape {flags.shape}; it must be ({steps}, {rows}), as x")
    return flags[..., None]

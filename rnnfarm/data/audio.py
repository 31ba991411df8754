"""The log-mel features of speech recognition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rnnfarm.errors import JobError

if TYPE_CHECKING:
    import numpy.typing as npt

BLOCK = 512  # windows that are transformed at once
LEAST_DEVIATION = 1e-5


@dataclass(frozen=True)
class LogMel:
    """The log-mel features of sound of one rate.

    Pre-emphasis, Hann windows, the power spectrum, triangular filters that lie evenly on the mel
    scale of HTK from 0 to half the rate, and the logarithm, never of less than `floor`. `deltas`
    appends so many orders of change over time, the regression over two frames to either side of
    HTK; `normalise` gives every figure mean 0 and deviation 1 over the utterance.

    rate: in Hz; window, step: in milliseconds. JobError where a filter has no frequency.
    """

    rate: int
    window: float = 25.0
    step: float = 10.0
    mels: int = 40
    emphasis: float = 0.97
    floor: float = 1e-10
    deltas: int = 0
    normalise: bool = True

    @property
    def width(self) -> int:
        """Figures a frame."""
        return self.mels * (1 + self.deltas)

    @property
    def length(self) -> int:
        """Samples of a window."""
        return max(1, round(self.rate * self.window / 1000))

    def __call__(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The features (frames, width) of (samples,); sound shorter than a window is one frame."""
        mels = self._mels(samples)
        orders = [mels]
        for _ in range(self.deltas):
            orders.append(_change(orders[-1]))
        features = np.concatenate(orders, axis=1)
        if self.normalise:
            features -= features.mean(axis=0)
            features /= np.maximum(features.std(axis=0), LEAST_DEVIATION)
        return features.astype(np.float32)

    def _mels(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The logarithms of what the filters let through (frames, mels)."""
        sound = samples.astype(np.float64)
        sound = sound - self.emphasis * np.concatenate([sound[:1], sound[:-1]])
        sound = np.pad(sound, (0, max(0, self.length - len(sound))))
        every = max(1, round(self.rate * self.step / 1000))
        frames = sliding_window_view(sound, self.length)[::every]
        mels = np.empty((len(frames), self.mels))
        for low in range(0, len(frames), BLOCK):
            part = frames[low : low + BLOCK] * np.hanning(self.length)
            power = np.abs(np.fft.rfft(part, self._points)) ** 2 / self._points
            mels[low : low + BLOCK] = np.log(np.maximum(power @ self.filters.T, self.floor))
        return mels

    @property
    def _points(self) -> int:
        """Points of the Fourier transform: the next power of two."""
        return 1 << (self.length - 1).bit_length()

    @cached_property
    def filters(self) -> npt.NDArray[np.float64]:
        """The weight of every frequency in every filter (mels, frequencies)."""
        edges = np.linspace(0, _mel(np.array(self.rate / 2)), self.mels + 2)[:, None]
        at = _mel(np.arange(self._points // 2 + 1, dtype=np.float64) * (self.rate / self._points))
        rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
        weights: npt.NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
        empty = np.flatnonzero(weights.sum(axis=1) == 0)
        if empty.size:
            raise JobError(
                f"setting 'mels': of {self.mels} filters number {empty[0] + 1} has no frequency in"
                f" windows of {self.window:g} ms at {self.rate} Hz; give fewer, or a longer"
                " 'window'"
            )
        return weights


def _mel(hertz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mel: npt.NDArray[np.float64] = 2595 * np.log10(1 + hertz / 700)
    return mel


def _change(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The slope of each figure over five frames (frames, width)."""
    padded = np.pad(features, ((2, 2), (0, 0)), mode="edge")
    frames = len(features)
    near = padded[3 : 3 + frames] - padded[1 : 1 + frames]
    far = padded[4:] - padded[:frames]
    slope: npt.NDArray[np.float64] = (near + 2 * far) / 10
    return slope

"""WAV files of PCM or floats, as they are and as streams that were cut off from their header."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
#: What follows the format's number in the sub-format of WAVE_FORMAT_EXTENSIBLE.
SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")
#: Programs that write to a pipe do not know the length, and give one from here on.
ENDLESS = 0x7FFFF000
FORMAT_BYTES = 40
HIGHEST_RATE = 1_000_000  # Hz


class WavError(Exception):
    """What is wrong with a WAV file, as a sentence without its subject."""


class NotPlainWavError(WavError):
    """A file that is no WAV file, or one of compressed samples."""


@dataclass(frozen=True)
class WavFormat:
    """How samples are stored: whether as floats, their channels, their rate, bytes a sample."""

    floats: bool
    channels: int
    rate: int
    width: int

    @property
    def frame(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * self.width


def find_samples(file: IO[bytes]) -> tuple[WavFormat, int, int]:
    """Return the format of a WAV file, and how many frames it says it holds and does hold.

    Leaves the file where the samples begin. Raises WavError where it is no whole WAV file.
    """
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise NotPlainWavError("is no WAV file")
    form: WavFormat | None = None
    end = os.fstat(file.fileno()).st_size
    while True:
        chunk = file.read(8)
        if len(chunk) < 8:
            raise WavError("has no 'data' chunk")
        name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"data":
            break
        begin = file.tell()
        if name == b"fmt ":
            form = _format(file.read(min(size, FORMAT_BYTES)))
        file.seek(begin + size + size % 2)
    if form is None:
        raise WavError("has no 'fmt ' chunk before its 'data' chunk")
    left = end - file.tell()
    unclosed = size == 0 and int.from_bytes(head[4:8], "little") == 0
    if unclosed or (size >= ENDLESS and size > left):
        size = left - left % form.frame
    elif size == 0 and left:
        raise WavError(f"says that it holds 0 bytes of samples, and {left:,} bytes follow")
    return form, -(-size // form.frame), min(size, left) // form.frame


def _format(chunk: bytes) -> WavFormat:
    if len(chunk) < 16:
        raise WavError("has a 'fmt ' chunk that is cut off")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16])
    if tag == EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == SUBFORMAT:
        tag = int.from_bytes(chunk[24:26], "little")
    if (tag, bits) not in {*((PCM, n) for n in (8, 16, 24, 32)), (FLOAT, 32), (FLOAT, 64)}:
        raise NotPlainWavError(f"has samples of format {tag:#06x} with {bits} bits")
    if not channels or not 0 < rate <= HIGHEST_RATE:
        raise WavError(f"has {channels} channels at {rate} Hz")
    return WavFormat(tag == FLOAT, channels, rate, bits // 8)


def decode(data: bytes, form: WavFormat) -> npt.NDArray[np.float32]:
    """Return samples (frames, channels), PCM from -1 to 1; 8 bits are unsigned, as the format has
    it."""
    if form.floats:
        with np.errstate(over="ignore"):
            samples = np.frombuffer(data, f"<f{form.width}").astype(np.float32)
    elif form.width == 1:
        samples = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)
    else:
        raw = np.frombuffer(data, np.uint8).reshape(-1, form.width)
        whole = np.zeros((len(raw), 4), np.uint8)  # little-endian, so the high bytes come last
        whole[:, 4 - form.width :] = raw
        samples = whole.view("<i4")[:, 0].astype(np.float32) / np.float32(1 << 31)
    return samples.reshape(-1, form.channels)

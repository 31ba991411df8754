"""Reading sound files, and bringing them to a rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfarm.data.wav import NotPlainWavError, WavError, decode, find_samples
from rnnfarm.errors import DataError, JobError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

MOST_SAMPLES = 1 << 24
CONVERT = "convert it (ffmpeg -i IN -c:a pcm_s16le OUT.wav)"
INSTALL = "run pip install 'rnnfarm[audio]'"


def read_sound(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    """Return the samples of a sound file (samples,), channels mixed, and the rate in Hz.

    WAV of 8, 16, 24 or 32 bits from -1 to 1, or of floats, needs nothing else; FLAC, Ogg, MP3 and
    other WAV files are read by soundfile, of the extra `audio`. DataError where the file is
    something else, cut off, too long for memory, or has a sample that is not finite.
    """
    try:
        with path.open("rb") as file:
            form, count, held = find_samples(file)
            _check_size(path, count, held, form.channels)
            samples, rate = decode(file.read(held * form.frame), form), form.rate
    except NotPlainWavError as error:
        samples, rate = _read_by_soundfile(path, str(error))
    except WavError as error:
        raise DataError(f"{path}: {error}; {CONVERT}, or leave it out") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); fix its permissions") from None
    with np.errstate(over="ignore", invalid="ignore"):
        mixed = samples.mean(axis=1, dtype=np.float32)
    finite = np.isfinite(mixed)
    if not finite.all():
        raise DataError(
            f"{path}: sample {int(finite.argmin())} is not finite; correct it, or leave the file"
            " out"
        )
    return mixed, rate


def _check_size(path: Path, count: int, held: int, channels: int) -> None:
    if count * channels > MOST_SAMPLES and held == count:
        raise DataError(
            f"{path}: holds {count * channels:,} samples where an utterance has"
            f" {MOST_SAMPLES:,} at most; cut it"
        )
    if not count or held < count:
        what = f"{held:,} of {count:,} samples" if count else "no samples"
        raise DataError(f"{path}: holds {what}; restore it, or leave it out")


def _read_by_soundfile(path: Path, why: str) -> tuple[npt.NDArray[np.float32], int]:
    try:
        import soundfile
    except (ImportError, OSError):
        raise DataError(
            f"{path}: {why}, and other sound files are read by soundfile, which is not here;"
            f" {INSTALL}, or {CONVERT}"
        ) from None
    try:
        with soundfile.SoundFile(str(path)) as file:
            count: int = file.frames
            if count * file.channels <= MOST_SAMPLES:
                samples: npt.NDArray[np.float32] = file.read(dtype="float32", always_2d=True)
                _check_size(path, count, len(samples), file.channels)
                return samples, int(file.samplerate)
            _check_size(path, count, count, file.channels)
    except soundfile.SoundFileError as error:
        what = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise DataError(
            f"{path}: {why}, nor is it read as other sound ({what}); {CONVERT}"
        ) from None
    raise AssertionError  # _check_size has refused it


def resample(samples: npt.NDArray[np.float32], rate: int, to: int) -> npt.NDArray[Any]:
    """Return sound (samples,) of one rate at another; JobError where soxr is not installed."""
    if rate == to:
        return samples
    try:
        import soxr
    except ImportError:
        raise JobError(
            f"setting 'rate': sound of {rate} Hz is brought to {to} Hz by soxr, which is not here;"
            f" {INSTALL}, or convert the files"
        ) from None
    found: npt.NDArray[Any] = soxr.resample(samples, rate, to)
    return found

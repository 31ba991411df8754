"""Sound files of every kind that is read, against what was written into them."""

from __future__ import annotations

import struct
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of

from rnnfarm.builtin.audio import Wav
from rnnfarm.data import build_dataset
from rnnfarm.data.audio import LogMel
from rnnfarm.data.sound import read_sound, resample
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.errors import DataError, JobError

RATE = 8000
GUID = "000000001000800000aa00389b71"


def sound(seconds: float = 0.2, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise (frames, channels) from -0.9 to 0.9."""
    shape = (round(seconds * RATE), channels)
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape)


def encoded(samples: np.ndarray, bits: int, floats: bool) -> bytes:
    if floats:
        return samples.astype(f"<f{bits // 8}").tobytes()
    if bits == 8:
        return np.round(samples * 128 + 128).astype(np.uint8).tobytes()
    whole = np.round(samples * 2.0 ** (bits - 1)).astype("<i8")
    return whole.reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes()


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    return (
        name
        + struct.pack("<I", len(data) if size is None else size)
        + data
        + b"\0" * (len(data) % 2)
    )


def wav(
    samples: np.ndarray,
    bits: int = 16,
    floats: bool = False,
    extensible: bool = False,
    extra: bytes = b"",
    size: int | None = None,
    riff: int | None = None,
    rate: int = RATE,
) -> bytes:
    """A WAV file, written byte by byte."""
    channels, tag = samples.shape[1], 3 if floats else 1
    frame = channels * bits // 8
    form = struct.pack(
        "<HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * frame, frame, bits
    )
    if extensible:
        form += struct.pack("<HHIH", 22, bits, 0, tag) + bytes.fromhex(GUID)
    body = b"WAVE" + chunk(b"fmt ", form) + extra
    body += chunk(b"data", encoded(samples, bits, floats), size)
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


KINDS = [(8, False), (16, False), (24, False), (32, False), (32, True), (64, True)]


@pytest.mark.parametrize(("bits", "floats"), KINDS)
@pytest.mark.parametrize("extensible", [False, True])
def test_samples_of_every_kind(tmp_path: Path, bits: int, floats: bool, extensible: bool) -> None:
    samples = sound(channels=2)
    extra = chunk(b"LIST", b"odd") + chunk(b"fact", b"four")
    (tmp_path / "a.wav").write_bytes(wav(samples, bits, floats, extensible, extra))
    found, rate = read_sound(tmp_path / "a.wav")
    assert (rate, found.dtype, found.shape) == (RATE, np.float32, (1600,))
    step = 1e-7 if floats else max(2.0**-bits, 1e-7)
    np.testing.assert_allclose(found, samples.mean(axis=1), atol=step * 1.01)


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_soundfile_reads_the_same_bits(tmp_path: Path, bits: int) -> None:
    soundfile = pytest.importorskip("soundfile", reason="compared with soundfile")
    (tmp_path / "a.wav").write_bytes(wav(sound(), bits))
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert read_sound(tmp_path / "a.wav")[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize(("suffix", "error"), [("flac", 2e-5), ("aiff", 5e-5), ("ogg", 0.5)])
def test_other_kinds_of_files(tmp_path: Path, suffix: str, error: float) -> None:
    soundfile = pytest.importorskip("soundfile", reason="FLAC and Ogg need soundfile")
    tone = 0.5 * np.sin(np.arange(4000) / 5)
    soundfile.write(tmp_path / f"a.{suffix}", tone, RATE)
    found, rate = read_sound(tmp_path / f"a.{suffix}")
    assert rate == RATE
    assert np.abs(found - tone).max() < error


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_stream_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    samples = sound()
    whole = wav(samples, size=size, riff=0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(whole)
    found, _ = read_sound(tmp_path / "a.wav")
    np.testing.assert_allclose(found, samples[:, 0], atol=2e-5)
    (tmp_path / "a.wav").write_bytes(whole[:-1])  # in the middle of a sample
    assert len(read_sound(tmp_path / "a.wav")[0]) == len(samples) - 1


def test_a_file_that_was_never_closed_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(sound(), size=0, riff=0))
    assert len(read_sound(tmp_path / "a.wav")[0]) == 1600


def damaged() -> dict[str, tuple[bytes, str]]:
    whole = wav(sound())
    wrong = sound()
    wrong[7] = np.nan
    huge = sound()
    huge[3] = 1e300
    return {
        "empty": (wav(sound(0)), "holds no samples; restore it"),
        "cut": (whole[:-100], "holds 1,550 of 1,600 samples; restore it"),
        "header alone": (whole[:30], "'fmt ' chunk that is cut off"),
        "no data": (whole[:36], "has no 'data' chunk"),
        "the name of the chunk": (whole.replace(b"data", b"da\0\0"), "has no 'data' chunk"),
        "no format": (whole.replace(b"fmt ", b"fmx "), "has no 'fmt ' chunk before"),
        "no length": (
            wav(sound(), size=0),
            "says that it holds 0 bytes of samples, and 3,200 bytes f",
        ),
        "no channels": (whole[:22] + b"\0\0" + whole[24:], "has 0 channels"),
        "rate": (whole[:24] + b"\xff" * 4 + whole[28:], "1 channels at 4294967295 Hz"),
        "NaN": (wav(wrong, 32, floats=True), "sample 7 is not finite"),
        "too large": (wav(huge, 64, floats=True), "sample 3 is not finite"),
        "ADPCM": (whole[:20] + b"\2" + whole[21:], "has samples of format 0x0002 with 16 bits"),
        "no sound": (b"hello", "is no WAV file"),
    }


@pytest.mark.parametrize("name", damaged())
@pytest.mark.parametrize("without", [False, True])
def test_a_damaged_file_is_named(
    tmp_path: Path, name: str, without: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if without:
        monkeypatch.setitem(sys.modules, "soundfile", None)
    data, what = damaged()[name]
    (tmp_path / "0_x.wav").write_bytes(data)
    with pytest.raises(DataError, match=what) as error:
        read_sound(tmp_path / "0_x.wav")
    assert sentence_of(error.value).startswith(str(tmp_path / "0_x.wav"))


def test_a_flac_file_that_is_cut_off(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="FLAC needs soundfile")
    soundfile.write(tmp_path / "a.flac", sound(2.0), RATE)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.flac: ") as error:
        read_sound(tmp_path / "a.flac")
    sentence_of(error.value)


def test_what_reads_other_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    with pytest.raises(DataError, match=r"read by soundfile, .* pip install 'rnnfarm\[audio\]'"):
        read_sound(tmp_path / "a.flac")
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(JobError, match=r"brought to 8000 Hz by soxr, .* pip install 'rnnfarm\["):
        resample(np.zeros(9, np.float32), 16000, 8000)


# Rates.


def tone(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)[:, None]


def recordings(folder: Path, rates: list[int], **settings: Any) -> Wav:
    for number, rate in enumerate(rates):
        (folder / f"{'ab'[number % 2]}_{number}.wav").write_bytes(
            wav(tone(300 + 700 * (number % 2), rate), rate=rate)
        )
    reader = Wav(**{"files": ["*.wav"], "valid": 0.0, "mels": 20, "normalise": False} | settings)
    reader.base = folder
    return reader


def prediction(reader: Wav, learned: dict[str, Any], path: Path) -> np.ndarray:
    again = Wav(**reader.settings())
    again.recall(learned, {"label": Vocabulary("word", ["a", "b"])})
    (piece,) = again.inputs(path)
    return piece.columns["features"]


def test_another_rate_than_that_of_the_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    reader = recordings(tmp_path, [8000, 8000])
    dataset = build_dataset(reader, tmp_path / "data")
    assert dataset.provenance is not None
    learned = dataset.provenance.learned
    assert learned == {"rate": 8000}
    for rate in (16000, 44100):
        path = tmp_path / "new" / f"{rate}.wav"
        path.write_bytes(wav(tone(300, rate), rate=rate))
        what = rf"{rate}\.wav: has {rate} samples a second where the data have 8000; convert it"
        with pytest.raises(DataError, match=what) as error:
            prediction(reader, learned, path)
        sentence_of(error.value)
    path.write_bytes(wav(tone(300, 8000)))
    expected = LogMel(8000, mels=20, normalise=False)(read_sound(path)[0])
    assert prediction(reader, learned, path).tobytes() == expected.tobytes()
    with pytest.raises(DataError, match=r"b_1\.wav: has 16000 samples a second where .*a_0\.wav"):
        build_dataset(recordings(tmp_path, [8000, 16000]), tmp_path / "mixed")


def test_files_are_brought_to_a_rate(tmp_path: Path) -> None:
    pytest.importorskip("soxr", reason="another rate needs soxr")
    reader = recordings(tmp_path, [8000, 16000, 44100, 11025], rate=8000)
    dataset = build_dataset(reader, tmp_path / "data")
    part = dataset.split("train")
    starts = [*part.starts().tolist(), part.steps]
    at = [300, 300, 1000, 1000]  # a_0, a_2, b_1, b_3
    for hertz, (low, high) in zip(at, pairwise(starts), strict=True):
        plain = LogMel(8000, mels=20, normalise=False)(tone(hertz, 8000)[:, 0].astype(np.float32))
        found = part.read("features", low, high)
        assert abs(len(found) - len(plain)) <= 1
        loudest = plain.mean(axis=0).argmax()
        middle = slice(5, -5)  # the ends of a tone are heard at all frequencies
        np.testing.assert_allclose(
            found[middle, loudest].mean(), plain[middle, loudest].mean(), atol=0.05
        )
    # What 8,000 samples a second cannot hold is gone, not folded into other frequencies.
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "high.wav").write_bytes(wav(tone(6000, 16000), rate=16000))
    found = prediction(reader, {"rate": 8000}, tmp_path / "new" / "high.wav")
    low = prediction(reader, {"rate": 8000}, tmp_path / "b_1.wav")
    assert found[5:-5].max() < low[5:-5].max() - 10

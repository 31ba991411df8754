"""The readers of labelled, paired, spoken and made-up sequences, on real files."""

from __future__ import annotations

import sys
import wave
from itertools import pairwise

import numpy as np
import pytest
from data_tools import real_data, sentence_of

from rnnfarm.builtin.adding import Adding
from rnnfarm.builtin.audio import Wav
from rnnfarm.builtin.digits import SAMPLES, DigitLines, DigitScenes
from rnnfarm.builtin.labels import LabelledText
from rnnfarm.builtin.parallel import ParallelText
from rnnfarm.builtin.timeseries import TimeSeries
from rnnfarm.data import build_dataset
from rnnfarm.data.audio import LogMel
from rnnfarm.data.draws import Draws
from rnnfarm.data.lines import Counts, numbered_lines
from rnnfarm.data.sound import read_sound
from rnnfarm.errors import DataError, JobError

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def build(reader, tmp_path, name="dataset"):
    reader.base = tmp_path
    dataset = build_dataset(reader, tmp_path / name)
    assert dataset.verify() == []
    return dataset


def read(dataset, split, column):
    """A column of the sequences of a split."""
    if split not in dataset.splits:
        return []
    view = dataset.split(split)
    starts = view.starts().tolist()
    if dataset.columns[column].own:
        return [view.own(column, start) for start in starts]
    return [view.read(column, a, b) for a, b in pairwise([*starts, view.steps])]


def texts(dataset, split, column):
    vocabulary = dataset.vocabulary(column)
    return [vocabulary.decode(ids) for ids in read(dataset, split, column)]


def bits(dataset):
    return [shard.sha256 for split in dataset.splits.values() for shard in split.shards]


def refused(reader, tmp_path, error, what):
    with pytest.raises(error, match=what) as raised:
        build(reader, tmp_path)
    sentence_of(raised.value)
    assert not list(tmp_path.glob("dataset*"))


# What they share.


@pytest.mark.parametrize("block", [1, 5, 1 << 20])
def test_numbered_lines(tmp_path, monkeypatch, block):
    (tmp_path / "a.txt").write_bytes("one\r\n\ngrün\nlast".encode())
    monkeypatch.setattr("rnnfarm.data.blocks.BLOCK", block)
    wanted = [(1, "one"), (2, ""), (3, "grün"), (4, "last")]
    assert list(numbered_lines(tmp_path / "a.txt")) == wanted
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n")
    assert list(numbered_lines(tmp_path / "a.txt")) == [(1, "one"), (2, "two")]


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("rnnfarm.data.blocks.BLOCK", 8)
    monkeypatch.setattr("rnnfarm.data.lines.LONGEST_LINE", 20)
    (tmp_path / "a.txt").write_text("one\n" + "x" * 40)
    with pytest.raises(DataError, match=r"a\.txt, line 2: is longer than 20 characters"):
        list(numbered_lines(tmp_path / "a.txt"))


def test_counts_forget_the_rarest(monkeypatch):
    monkeypatch.setattr("rnnfarm.data.lines.COUNTED", 4)
    counts = Counts()
    counts.add("aaabbbcdd")
    counts.add("efg")
    assert counts.entries(["?", "b"]) == ["?", "b", "a", "d"]
    assert counts.entries([], least=3) == ["a", "b"]
    assert counts.entries(["?"], most=2) == ["?", "a"]


def test_draws_are_the_same_in_every_version_of_numpy():
    draws = Draws(7, 1)
    assert [draws.below(1000) for _ in range(4)] == [573, 974, 231, 132]
    assert draws.fractions(2).tolist() == [0.718174498323604, 0.7172490982624806]
    assert Draws(7, 2).choose(3, 9) == [0, 2, 3]


def test_draws_are_even():
    draws = Draws(0, 0)
    assert np.bincount([draws.below(4) for _ in range(4000)]).tolist() == pytest.approx(
        [1000] * 4, rel=0.1
    )
    assert draws.fractions(4000).mean() == pytest.approx(0.5, rel=0.05)
    chosen = np.bincount(np.concatenate([draws.choose(2, 4) for _ in range(2000)]))
    assert chosen.tolist() == pytest.approx([1000] * 4, rel=0.1)
    assert draws.choose(4, 4) == [0, 1, 2, 3]


# Texts with labels.

REVIEWS = "good a Fine film .\nbad  a dull film !\n\ngood fine\n"


def labelled(tmp_path, text=REVIEWS, **settings):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    return LabelledText(**{"files": ["a.txt"], "valid": 0.0} | settings)


def test_labelled_text(tmp_path):
    dataset = build(labelled(tmp_path), tmp_path)
    assert dataset.vocabulary("label").entries == ["bad", "good"]
    assert [ids.tolist() for ids in read(dataset, "train", "label")] == [[1], [0], [1]]
    assert texts(dataset, "train", "tokens") == ["a Fine film .", "a dull film !", "fine"]
    assert dataset.columns["label"].own
    assert not dataset.columns["tokens"].own


def test_a_small_vocabulary_of_lower_case(tmp_path):
    dataset = build(labelled(tmp_path, lower=True, most=4), tmp_path)
    assert dataset.vocabulary("tokens").entries == ["<unk>", "a", "film", "fine"]
    assert texts(dataset, "train", "tokens")[0] == "a fine film <unk>"


@pytest.mark.parametrize("unit", ["characters", "bytes"])
def test_labels_last_after_a_tab(tmp_path, unit):
    text = "grüße an alle\tnot bad\nHallo\tbad\n"
    settings = {"unit": unit, "label": "last", "separator": "tab"}
    dataset = build(labelled(tmp_path, text, **settings), tmp_path)
    assert dataset.vocabulary("label").entries == ["bad", "not bad"]
    assert texts(dataset, "train", "tokens") == ["grüße an alle", "Hallo"]
    size = {"bytes": 256, "characters": 1 + len(set("grüße an alleHallo"))}
    assert dataset.columns["tokens"].vocabulary == size[unit]


def test_rare_characters(tmp_path):
    dataset = build(labelled(tmp_path, "1 aab\n", unit="characters", least=2), tmp_path)
    assert texts(dataset, "train", "tokens") == ["aa<unk>"]


def test_labels_that_are_numbers_are_in_their_order(tmp_path):
    dataset = build(labelled(tmp_path, "10 a\n9 b\n1 c\n"), tmp_path)
    assert dataset.vocabulary("label").entries == ["1", "9", "10"]


def test_named_files_for_validation_and_test(tmp_path):
    for name, word in (("v", "other"), ("t", "third")):
        (tmp_path / f"{name}.txt").write_text(f"good a {word} film\n")
    settings = {"files": ["*.txt"], "valid_files": ["v.txt"], "test_files": ["t.txt"]}
    dataset = build(labelled(tmp_path, **settings), tmp_path)
    assert len(read(dataset, "train", "tokens")) == 3
    assert texts(dataset, "valid", "tokens") == ["a <unk> film"]  # words of `train` alone
    assert texts(dataset, "test", "tokens") == ["a <unk> film"]


def test_a_hash_splits_lines_and_keeps_equal_texts_together(tmp_path):
    lines = [f"{i % 2} text number {i % 500}\n" for i in range(1500)]
    dataset = build(labelled(tmp_path, "".join(lines), valid=0.2, test=0.1), tmp_path)
    sizes = {name: split.sequences for name, split in dataset.splits.items()}
    assert 240 <= sizes["valid"] <= 360
    assert 90 <= sizes["test"] <= 210
    assert sum(sizes.values()) == 1500
    as_bytes = labelled(tmp_path, "".join(lines), valid=0.2, test=0.1, unit="bytes")
    whole = build(as_bytes, tmp_path, "bytes")
    parts = [set(texts(whole, split, "tokens")) for split in sizes]
    assert sum(len(part) for part in parts) == 500
    assert len(set.union(*parts)) == 500
    again = build(labelled(tmp_path, "".join(lines), valid=0.2, test=0.1), tmp_path, "again")
    assert bits(again) == bits(dataset)


@pytest.mark.parametrize(
    ("text", "settings", "error", "what"),
    [
        ("1 fine\n1\n", {}, DataError, "a.txt, line 2: has no space between a label and a text"),
        ("1 fine\n", {"separator": "tab"}, DataError, "a.txt, line 1: has no tab between"),
        (
            "1\tfine\n\t x\n",
            {"separator": "tab"},
            DataError,
            "a.txt, line 2: has a tab, and no label",
        ),
        (
            "1\tfine\n1\t\n",
            {"separator": "tab"},
            DataError,
            "line 2: has a tab, and no text beside",
        ),
        ("\n\n", {}, DataError, "no file holds a line"),
        ("1 fine\n", {"files": ["b.txt"]}, JobError, "b.txt in setting 'files' matches no file"),
        (
            "1 fine\n",
            {"valid_files": ["v.txt"]},
            DataError,
            "v.txt, line 2: no line of 'files' has",
        ),
        ("1 a\n", {"valid": 0.6, "test": 0.5}, JobError, "leave nothing to train"),
        ("x 1 a\nb c\nd e\n", {}, DataError, "a.txt, line 3: there are more than 2 labels"),
    ],
)
def test_wrong_labelled_text(tmp_path, monkeypatch, text, settings, error, what):
    monkeypatch.setattr("rnnfarm.builtin.labels.MOST_LABELS", 2)
    (tmp_path / "v.txt").write_text("1 fine\n2 fine\n")
    refused(labelled(tmp_path, text, **settings), tmp_path, error, what)


# Pairs.


def paired(tmp_path, german, english, **settings):
    (tmp_path / "a.de").write_text(german, encoding="utf-8")
    (tmp_path / "a.en").write_text(english, encoding="utf-8")
    files = {"source": {"train": ["a.de"]}, "target": {"train": ["a.en"]}}
    return ParallelText(**files | {"least": 1} | settings)


def test_parallel_text(tmp_path):
    dataset = build(paired(tmp_path, "das Haus\ndie Maus", "the house\na mouse !\n"), tmp_path)
    assert texts(dataset, "train", "source") == ["das Haus", "die Maus"]
    assert texts(dataset, "train", "target") == ["the house", "a mouse !"]
    assert dataset.vocabulary("target").entries[:4] == ["<s>", "</s>", "<unk>", "!"]
    assert dataset.vocabulary("source").entries[0] == "<unk>"
    assert dataset.columns["target"].own
    assert not dataset.columns["source"].own


def test_words_of_pairs_are_counted_in_the_training_part(tmp_path):
    (tmp_path / "v.de").write_text("das Tor\n")
    (tmp_path / "v.en").write_text("the <s> gate </s>\n")
    files = {
        "source": {"train": ["a.de"], "valid": ["v.de"]},
        "target": {"train": ["a.en"], "valid": ["v.en"]},
    }
    reader = paired(tmp_path, "Das das Haus\n", "The the house\n", lower=True, least=2, **files)
    dataset = build(reader, tmp_path)
    assert texts(dataset, "train", "source") == ["das das <unk>"]
    assert texts(dataset, "valid", "source") == ["das <unk>"]
    assert texts(dataset, "valid", "target") == ["the <unk> <unk> <unk>"]


def test_long_and_blank_pairs_are_left_out_and_counted(tmp_path):
    source, target = "a b\na b c\n\na\nx\n", "d\nd\nd\nd e f\ny z\n"
    dataset = build(paired(tmp_path, source, target, longest=2), tmp_path)
    assert texts(dataset, "train", "source") == ["a b", "x"]
    assert texts(dataset, "train", "target") == ["d", "y z"]
    assert dataset.vocabulary("source").entries == ["<unk>", "a", "b", "x"]
    wanted = "train: left out 3 of 5 pairs, blank or longer than 2 words on a side"
    assert dataset.provenance.notes == [wanted]


def test_the_first_pairs(tmp_path):
    lines = "".join(f"w{i}\n" for i in range(9))
    reader = paired(tmp_path, lines, lines, first=3)
    reader.source["valid"], reader.target["valid"] = ["a.de"], ["a.en"]
    dataset = build(reader, tmp_path)
    assert texts(dataset, "train", "source") == ["w0", "w1", "w2"]
    assert dataset.splits["valid"].sequences == 9
    assert dataset.columns["source"].vocabulary == 4


@pytest.mark.parametrize("settings", [{}, {"first": 1}])
def test_files_of_unequal_lines(tmp_path, settings):
    reader = paired(tmp_path, "a\n\nb\nc", "d\ne\n", **settings)
    what = r"a\.de has 4 lines and .*a\.en has 2; give files whose lines are pairs"
    refused(reader, tmp_path, DataError, what)


@pytest.mark.parametrize(
    ("source", "target", "what"),
    [
        ({"train": ["a.de"], "test": ["a.de"]}, {"train": ["a.en"]}, "not train, test and train"),
        ({"valid": ["a.de"]}, {"valid": ["a.en"]}, "both name files for train"),
        ({"train": ["a.de", "b.de"]}, {"train": ["a.en"]}, "2 and 1 files make no pairs"),
        ({"train": ["c.de"]}, {"train": ["a.en"]}, "c.de in setting 'source.train' matches no"),
    ],
)
def test_wrong_pairs_of_files(tmp_path, source, target, what):
    (tmp_path / "b.de").write_text("a\n")
    reader = paired(tmp_path, "a\n", "b\n", source=source, target=target)
    refused(reader, tmp_path, JobError, what)


def test_a_part_that_there_is_not():
    with pytest.raises(JobError, match="'train', 'valid' or 'test'"):
        ParallelText(source={"trian": ["a"]}, target={"train": ["a"]})


# Sound.

RATE = 8000


def write_wav(path, samples, rate=RATE, width=2):
    """Samples (n,) or (n, channels) from -1 to below 1, as PCM."""
    samples = np.asarray(samples, np.float64)
    whole = np.round(samples * 2.0 ** (8 * width - 1)).astype(np.int64)
    data = (whole + 128).astype(np.uint8) if width == 1 else whole.astype("<i4")
    raw = data.tobytes() if width == 1 else data.reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return path


def tone(hertz, seconds=0.3, rate=RATE):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_pcm_of_any_width(tmp_path, width):
    samples = np.random.default_rng(0).uniform(-1, 0.99, 500)
    found, rate = read_sound(write_wav(tmp_path / "a.wav", samples, 11025, width))
    assert rate == 11025
    np.testing.assert_allclose(found, samples, atol=max(2.0 ** (-8 * width), 1e-7))


def test_channels_are_mixed(tmp_path):
    both = np.random.default_rng(0).uniform(-1, 0.99, (300, 2))
    found, _ = read_sound(write_wav(tmp_path / "a.wav", both))
    np.testing.assert_allclose(found, both.mean(axis=1), atol=1e-4)


def log_mels(sound, rate, mels):
    """The features again, frame by frame and with a Fourier transform written out."""
    sound = np.concatenate([[sound[0] * 0.03], sound[1:] - 0.97 * sound[:-1]])
    length, every, points = rate // 40, rate // 100, 256
    turn = np.exp(-2j * np.pi * np.outer(np.arange(points // 2 + 1), np.arange(length)) / points)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))

    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    edges = np.linspace(0, mel(rate / 2), mels + 2)
    rows = []
    for low in range(0, len(sound) - length + 1, every):
        power = np.abs(turn @ (hann * sound[low : low + length])) ** 2 / points
        row = np.zeros(mels)
        for m in range(mels):
            for k, p in enumerate(power):
                left, centre, right = edges[m : m + 3]
                at = mel(k * rate / points)
                slope = (at - left) / (centre - left)
                row[m] += p * max(0, min(slope, (right - at) / (right - centre)))
        rows.append(np.log(np.maximum(row, 1e-10)))
    return np.array(rows)


def test_log_mel_features():
    sound = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    found = LogMel(RATE, mels=12, normalise=False)(sound)
    np.testing.assert_allclose(found, log_mels(sound.astype(float), RATE, 12), rtol=1e-5)


@pytest.mark.parametrize("hertz", [300, 1000, 2500])
def test_a_tone_is_loudest_in_its_own_filter(hertz):
    mel = LogMel(RATE, mels=20, normalise=False)
    loudest = mel(tone(hertz).astype(np.float32)).mean(axis=0).argmax()
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 22) / 2595) - 1)
    assert edges[loudest] < hertz < edges[loudest + 2]


def test_features_in_blocks_are_those_at_once(monkeypatch):
    sound = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    whole = LogMel(RATE)(sound)
    monkeypatch.setattr("rnnfarm.data.audio.BLOCK", 7)
    np.testing.assert_allclose(LogMel(RATE)(sound), whole, rtol=1e-5, atol=1e-5)


def test_features_are_normalised_and_have_deltas():
    sound = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    plain = LogMel(RATE, deltas=2, normalise=False)(sound)
    assert plain.shape[1] == 120
    t = 10
    slope = sum(n * (plain[t + n, :40] - plain[t - n, :40]) for n in (1, 2)) / 10
    np.testing.assert_allclose(plain[t, 40:80], slope, atol=1e-5)
    found = LogMel(RATE, deltas=2)(sound)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-4)


def test_sound_shorter_than_a_window_is_one_frame():
    found = LogMel(RATE)(np.ones(5, np.float32))
    assert found.shape == (1, 40)
    assert np.isfinite(found).all()


SPELL = {"0": "zero", "1": "one"}
PATTERN = "(?P<label>[0-9])_(?P<speaker>[a-z]+)_(?P<index>[0-9]+)"


def recordings(tmp_path, count=6, **settings):
    for i in range(count):
        for digit in "01":
            path = tmp_path / f"{digit}_{'ann' if i % 2 else 'bob'}_{i}.wav"
            write_wav(path, tone(500 + 500 * int(digit)))
    return Wav(**{"files": ["*.wav"], "pattern": PATTERN, "valid": 0.0} | settings)


def test_wav(tmp_path):
    reader = recordings(
        tmp_path,
        spell=SPELL,
        test={"index": ["0"]},
        valid={"speaker": ["bob"], "index": ["2", "3"]},
    )
    dataset = build(reader, tmp_path)
    assert {name: split.sequences for name, split in dataset.splits.items()} == {
        "train": 8,
        "valid": 2,
        "test": 2,
    }
    assert texts(dataset, "test", "label") == ["0", "1"]
    assert texts(dataset, "test", "letters") == ["zero", "one"]
    assert dataset.vocabulary("letters").entries == ["<blank>", "e", "n", "o", "r", "z"]
    expected = LogMel(RATE)(read_sound(tmp_path / "1_bob_0.wav")[0])
    np.testing.assert_array_equal(read(dataset, "test", "features")[1], expected)
    assert bits(build(reader, tmp_path, "again")) == bits(dataset)


def test_a_hash_of_the_name_splits_files(tmp_path):
    dataset = build(recordings(tmp_path, 40, valid=0.25, test=0.25, mels=4), tmp_path)
    sizes = {name: split.sequences for name, split in dataset.splits.items()}
    assert sum(sizes.values()) == 80
    assert 8 <= sizes["valid"] <= 32
    assert 8 <= sizes["test"] <= 32
    assert set(dataset.columns) == {"features", "label"}


@pytest.mark.parametrize(
    ("settings", "error", "what"),
    [
        ({"pattern": "(?P<label>[0-9]"}, JobError, "'pattern': is no regular expression"),
        ({"pattern": "[0-9].*"}, JobError, r"has no group \(\?P<label>"),
        ({"pattern": "(?P<label>0)_.*"}, DataError, "1_bob_0.wav: its name does not fit"),
        ({"test": {"speakr": ["bob"]}}, JobError, "have no group 'speakr'; did you mean 'speaker'"),
        ({"test": {"speaker": ["bop"]}}, JobError, "no file has 'bop' as its speaker; did you"),
        ({"spell": {"0": "zero"}}, JobError, "label '1' of .*1_bob_0.wav is spelled"),
        ({"mels": 200}, JobError, "'mels': of 200 filters number 1 has no frequency"),
        ({"valid": 0.5, "test": 0.5}, JobError, "leave nothing to train"),
        ({"files": ["*.flac"]}, JobError, "matches no file"),
    ],
)
def test_wrong_settings_of_wav(tmp_path, settings, error, what):
    refused(recordings(tmp_path, 1, **settings), tmp_path, error, what)


def test_wrong_wav(tmp_path):
    reader = recordings(tmp_path, 1)
    last = tmp_path / "1_bob_0.wav"
    whole = last.read_bytes()
    last.write_bytes(whole[:-100])
    refused(reader, tmp_path, DataError, "1_bob_0.wav: holds 2,350 of 2,400 samples")
    last.write_bytes(whole[:20] + b"\2" + whole[21:])  # the format's number, of ADPCM
    refused(reader, tmp_path, DataError, "1_bob_0.wav: has samples of format 0x0002 with 16 bits")
    last.write_bytes(b"RIFF")
    refused(reader, tmp_path, DataError, "1_bob_0.wav: is no WAV file")
    write_wav(last, tone(500), rate=16000)
    refused(reader, tmp_path, DataError, "1_bob_0.wav: has 16000 samples a second where")
    write_wav(last, np.zeros(0))
    refused(reader, tmp_path, DataError, "1_bob_0.wav: holds no samples")


def test_sound_that_is_too_long_for_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("rnnfarm.data.sound.MOST_SAMPLES", 1000)
    refused(recordings(tmp_path, 1), tmp_path, DataError, "0_bob_0.wav: holds 2,400 samples where")


# Made-up sequences.


def test_the_adding_problem(tmp_path):
    reader = Adding(length=11, examples=4000, valid_examples=5, test_examples=0)
    dataset = build(reader, tmp_path)
    assert list(dataset.splits) == ["train", "valid"]
    values = np.stack(read(dataset, "train", "values"))
    sums = np.stack(read(dataset, "train", "target"))[:, 0, 0]
    assert values.shape == (4000, 11, 2)
    assert set(np.unique(values[..., 1])) == {0, 1}
    assert (values[:, :5, 1].sum(axis=1) == 1).all()
    assert (values[:, 5:, 1].sum(axis=1) == 1).all()
    np.testing.assert_allclose(sums, values.prod(axis=2).sum(axis=1), rtol=1e-6)
    assert ((sums - 1) ** 2).mean() == pytest.approx(1 / 6, rel=0.06)
    assert 0 <= values.min() < values[..., 0].max() < 1
    assert (values[..., 1].mean(axis=0) > 0.1).all()


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip(
        "sklearn.datasets", reason="needs scikit-learn (pip install 'rnnfarm[digits]')"
    )
    return datasets.load_digits()


FEW = {"examples": 300, "valid_examples": 40, "test_examples": 100}


def own_pictures(digits, split):
    """The digits of a split, by their pictures; some pictures are there twice."""
    low, high = SAMPLES[split]
    pictures = (digits.images[low:high] / 16).astype(np.float32)
    return {p.tobytes(): int(d) for p, d in zip(pictures, digits.target[low:high], strict=True)}


def test_strips_of_digits(tmp_path, digits):
    dataset = build(DigitLines(gap=0, **FEW), tmp_path)
    for split in ("train", "valid", "test"):
        known = own_pictures(digits, split)
        strips = zip(read(dataset, split, "pixels"), read(dataset, split, "digits"), strict=True)
        for strip, labels in strips:
            assert strip.shape == (8 * len(labels), 8)
            parts = [np.ascontiguousarray(part.T) for part in np.split(strip, len(labels))]
            assert [known[part.tobytes()] + 1 for part in parts] == labels.tolist()
    lengths = [len(labels) for labels in read(dataset, "train", "digits")]
    assert set(lengths) == set(range(3, 9))
    text = texts(dataset, "train", "digits")[0]
    assert [int(d) + 1 for d in text] == read(dataset, "train", "digits")[0].tolist()
    assert dataset.vocabulary("digits").entries == ["<blank>", *"0123456789"]


def test_strips_have_gaps_and_digits_stand_at_heights(tmp_path, digits):
    dataset = build(DigitLines(gap=4, jitter=3, shortest=2, longest=2, **FEW), tmp_path)
    assert dataset.columns["pixels"].width == 11
    strips = read(dataset, "train", "pixels")
    assert {len(strip) for strip in strips} == set(range(16, 29))
    known = own_pictures(digits, "train")
    tops = set()
    for strip in strips:
        inked = np.flatnonzero(strip.any(axis=1))[0]  # at most four, of a gap, and the digit's own
        found = [
            (x, y)
            for x in range(min(inked + 1, 5))
            for y in range(4)
            if np.ascontiguousarray(strip[x : x + 8, y : y + 8].T).tobytes() in known
        ]
        assert found
        tops.update(y for _, y in found)
    assert tops == {0, 1, 2, 3}


def describe(cells):
    """The caption of a grid of cells, each a digit or None."""
    found = [(r, c, d) for r, row in enumerate(cells) for c, d in enumerate(row) if d is not None]
    text = ""
    for i, (row, column, digit) in enumerate(found):
        if i:
            up, left, _ = found[i - 1]
            side = " and left of" if left < column else " and right of" if left > column else ""
            text += f" above{side} " if up < row else " left of "
        text += f"{'an' if digit == 8 else 'a'} {NAMES[digit]}"
    return text


@pytest.mark.parametrize("steps", ["rows", "whole"])
def test_scenes_of_digits(tmp_path, digits, steps):
    dataset = build(DigitScenes(steps=steps, **FEW), tmp_path)
    captions = set()
    for split in ("train", "valid", "test"):
        known = own_pictures(digits, split)
        scenes = zip(read(dataset, split, "pixels"), texts(dataset, split, "caption"), strict=True)
        for pixels, caption in scenes:
            assert pixels.shape == ((24, 24) if steps == "rows" else (1, 576))
            rows = pixels.reshape(3, 8, 3, 8).swapaxes(1, 2)
            cells = [[known[c.tobytes()] if c.any() else None for c in row] for row in rows.copy()]
            assert caption == describe(cells)
            captions.add(caption)
    assert {len([w for w in c.split() if w in ("a", "an")]) for c in captions} == {1, 2, 3}
    assert any("above and right of" in caption for caption in captions)
    assert dataset.vocabulary("caption").entries[:3] == ["<s>", "</s>", "<unk>"]


@pytest.mark.parametrize("kind", [Adding, DigitLines, DigitScenes])
def test_a_seed_decides_what_is_made_up(tmp_path, request, kind):
    if kind is not Adding:
        request.getfixturevalue("digits")
    few = {"examples": 5, "valid_examples": 5, "test_examples": 5}
    first, again, other = (
        bits(build(kind(seed=seed, **few), tmp_path, f"{i}")) for i, seed in enumerate((3, 3, 4))
    )
    assert first == again
    assert not set(first) & set(other)
    assert len(set(first)) == 3


@pytest.mark.parametrize(
    ("reader", "what"),
    [
        (DigitLines(shortest=5, longest=4), "'shortest' and 'longest': 5 is more than 4"),
        (DigitScenes(grid=1, most=2), "'most': 2 digits have no room in 1 cells"),
    ],
)
def test_wrong_pictures_of_digits(tmp_path, reader, what):
    refused(reader, tmp_path, JobError, what)


def test_without_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    refused(DigitLines(), tmp_path, JobError, r"install it: pip install 'rnnfarm\[digits\]'")


# Time series.

HEADER = "# a comment\n@problemName x\n@timeStamps false\n@classLabel true up down\n@data\n"


def series(tmp_path, text, **settings):
    (tmp_path / "train.ts").write_text(text)
    return TimeSeries(**{"files": ["train.ts"], "valid": 0.0} | settings)


def test_time_series(tmp_path):
    (tmp_path / "test.ts").write_text(HEADER.replace("up down", "down up") + "7:8:up\n")
    text = HEADER + "1,2,3:4,5,6:down\n\n0.5:-1e3:up\n"
    dataset = build(series(tmp_path, text, test_files=["test.ts"]), tmp_path)
    values = read(dataset, "train", "values")
    assert [v.tolist() for v in values] == [[[1, 4], [2, 5], [3, 6]], [[0.5, -1000]]]
    assert texts(dataset, "train", "label") == ["down", "up"]
    assert dataset.vocabulary("label").entries == ["up", "down"]
    assert texts(dataset, "test", "label") == ["up"]


def test_every_label_is_in_the_validation_part(tmp_path):
    text = HEADER + "".join(f"{i}:{'up' if i < 40 else 'down'}\n" for i in range(50))
    dataset = build(series(tmp_path, text, valid=0.2), tmp_path)
    labels = texts(dataset, "valid", "label")
    assert labels == ["up"] * 8 + ["down"] * 2
    first = [int(v[0, 0]) for v in read(dataset, "valid", "values")]
    assert first == [4, 9, 14, 19, 24, 29, 34, 39, 44, 49]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            HEADER + "1,2:3,4:up\n1,2:3:up\n",
            "train.ts, line 7: its dimensions have from 1 to 2 step",
        ),
        (HEADER + "1,2:3,4:up\n1,2:up\n", "train.ts, line 7: 1 dimensions where the first series"),
        (HEADER + "1,2:3,4:upp\n", "train.ts, line 6: 'upp' is no label .*did you mean 'up'"),
        (HEADER + "1,2:3,x:up\n", r"line 6, dimension 2: step 2 is no finite number \('x'\)"),
        (HEADER + "1,?:3,4:up\n", r"line 6, dimension 1: step 2 has no value \('\?'\)"),
        (HEADER + "1,inf:up\n", "line 6, dimension 1: step 2 is no finite number"),
        (HEADER + "1 2 3\n", "train.ts, line 6: has no ':' before a label"),
        (HEADER, "train.ts: holds no series after @data"),
        (HEADER.replace("@data", ""), "train.ts: has no line @data"),
        (
            HEADER.replace("Stamps false", "Stamps true"),
            "train.ts, line 3: series with time stamps",
        ),
        (HEADER.replace("true up down", "false"), "train.ts, line 4: names no labels"),
        ("@data\n1:up\n", "train.ts: has no line @classLabel before @data"),
        ("@classLabel true a b\n1,2:a\n", "train.ts, line 2: stands before @data"),
    ],
)
def test_wrong_time_series(tmp_path, text, what):
    refused(series(tmp_path, text), tmp_path, DataError, what)


# Real data.


def test_film_reviews(tmp_path):
    folder = real_data("sst2")
    files = {"files": "train", "valid_files": "dev", "test_files": "test"}
    named = {setting: [str(folder / f"{name}.txt")] for setting, name in files.items()}
    dataset = build(LabelledText(**named), tmp_path)
    sizes = [split.sequences for split in dataset.splits.values()]
    assert sizes == [6920, 872, 1821]
    assert dataset.vocabulary("label").entries == ["0", "1"]
    line = (folder / "train.txt").read_text(encoding="utf-8").splitlines()[7]
    label = texts(dataset, "train", "label")[7]
    assert f"{label} {texts(dataset, 'train', 'tokens')[7]}" == line


def test_captions_in_two_languages(tmp_path):
    folder = real_data("multi30k")
    names = {"train": "train", "valid": "val", "test": "test_2016"}
    sides = [
        {part: [str(folder / f"{name}.{language}")] for part, name in names.items()}
        for language in ("de", "en")
    ]
    dataset = build(ParallelText(source=sides[0], target=sides[1], first=5000), tmp_path)
    sizes = [split.sequences for split in dataset.splits.values()]
    assert sizes == [5000, 1014, 1000]
    lines = (folder / "train.en").read_text(encoding="utf-8").splitlines()[:5000]
    counted = [len(target) for target in read(dataset, "train", "target")]
    assert counted == [len(line.split()) for line in lines]


def test_spoken_digits(tmp_path):
    folder = real_data("fsdd/recordings")
    reader = Wav(
        files=[str(folder / "*_george_[0-9].wav")],
        pattern=PATTERN,
        test={"index": ["0", "1", "2", "3", "4"]},
        valid={"index": ["5"]},
        spell={str(digit): name for digit, name in enumerate(NAMES)},
    )
    dataset = build(reader, tmp_path)
    assert [split.sequences for split in dataset.splits.values()] == [40, 10, 50]
    assert sorted(set(texts(dataset, "test", "letters"))) == sorted(NAMES)
    assert all(len(f) > 15 for f in read(dataset, "train", "features"))


def test_japanese_vowels(tmp_path):
    folder = real_data("japanese-vowels")
    reader = TimeSeries(files=[str(folder / "TRAIN.ts")], test_files=[str(folder / "TEST.ts")])
    dataset = build(reader, tmp_path)
    assert [split.sequences for split in dataset.splits.values()] == [243, 27, 370]
    assert sorted(texts(dataset, "valid", "label")) == [str(i) for i in range(1, 10) for _ in "123"]
    assert dataset.columns["values"].width == 12
    lengths = [len(v) for split in dataset.splits for v in read(dataset, split, "values")]
    assert (min(lengths), max(lengths)) == (7, 29)

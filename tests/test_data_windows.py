"""Streams and examples against a naive reading in plain Python."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from data_tools import sequences, write
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnfarm.data import Column, DatasetWriter, Examples, Streams, Window, open_dataset
from rnnfarm.data.forecasts import Forecasts
from rnnfarm.errors import JobError

COLUMNS = {"tokens": (), "values": (2,), "labels": ()}
TARGETS = ["next", "tokens", "values", "labels"]


@st.composite
def splits(draw, longest=25):
    """A split with borders of sequences, pieces, record batches and shards in many places."""
    lengths = draw(st.lists(st.integers(1, longest), min_size=1, max_size=12))
    rows = sequences(lengths, seed=draw(st.integers(0, 9)))
    with tempfile.TemporaryDirectory() as folder:
        # The shards are mapped before the folder goes, and stay mapped.
        split = write(
            Path(folder) / "d",
            rows,
            piece=draw(st.sampled_from([3, 10, 1000])),
            batch_rows=draw(st.sampled_from([1, 3, 1000])),
            shard_bytes=draw(st.sampled_from([50, 300, 1 << 20])),
        ).split("train")
        split.starts()
    return rows, split


def same(a: Window, b: Window) -> None:
    """Two windows are equal; no mask is a mask of True, no reset one of False."""
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.target, b.target)
    np.testing.assert_array_equal(a.valid, b.valid)
    assert (a.x.dtype, a.target.dtype) == (b.x.dtype, b.target.dtype)
    shape = a.valid.shape
    for ours, theirs, usual in ((a.mask, b.mask, True), (a.reset, b.reset, False)):
        np.testing.assert_array_equal(
            np.full(shape, usual) if ours is None else ours,
            np.full(shape, usual) if theirs is None else theirs,
        )


def part(window: Window, rows: slice) -> Window:
    cut = [None if a is None else a[:, rows] for a in (window.mask, window.reset)]
    return Window(window.x[:, rows], window.target[:, rows], window.valid[:, rows], *cut)


def empty(steps, batch, x, target):
    def zeros(name):
        kind = np.float32 if name == "values" else np.int32
        return np.zeros((steps, batch, *COLUMNS[name]), kind)

    flags = [np.zeros((steps, batch), bool) for _ in range(3)]
    return Window(zeros(x), zeros(x if target == "next" else target), *flags)


def put(window, t, b, rows, sequence, at, x, target, counts):
    """Write one step of a sequence into a naive window."""
    row = rows[sequence]
    last = at + 1 == len(row[x])
    window.x[t, b] = row[x][at]
    window.mask[t, b] = True
    window.valid[t, b] = counts and not (target == "next" and last)
    if window.valid[t, b]:
        window.target[t, b] = row[x][at + 1] if target == "next" else row[target][at]


def naive_stream(rows, n, x, target, batch, window, stride):
    steps = [(s, at) for s, row in enumerate(rows) for at in range(len(row[x]))]
    length = len(steps) // batch
    high = (n % (length // stride) + 1) * stride
    out = empty(window, batch, x, target)
    for b in range(batch):
        for t in range(window):
            at = high - window + t
            if at >= 0:
                sequence, place = steps[b * length + at]
                put(out, t, b, rows, sequence, place, x, target, t >= window - stride)
                out.reset[t, b] = place == 0 or at == 0
    return out


@settings(max_examples=80, deadline=None)
@given(
    splits(),
    st.sampled_from(list(COLUMNS)),
    st.sampled_from(TARGETS),
    st.integers(1, 4),
    st.integers(1, 7),
    st.data(),
)
def test_streams_are_the_naive_ones(made, x, target, batch, window, data):
    rows, split = made
    stride = data.draw(st.integers(1, window))
    if split.steps // batch < max(2, stride):
        with pytest.raises(JobError, match="but a stream needs"):
            Streams(split, input=x, target=target, batch=batch, window=window, stride=stride)
        return
    streams = Streams(split, input=x, target=target, batch=batch, window=window, stride=stride)
    epoch = streams.windows_in_epoch(0)
    order = data.draw(st.permutations(range(min(epoch + 2, 30))))
    for n in order:
        naive = naive_stream(rows, n, x, target, batch, window, stride)
        same(streams.read(n), naive)
        lane = data.draw(st.sampled_from([slice(0, 1), slice(1, batch), slice(batch // 2, None)]))
        same(streams.read(n, lane), part(naive, lane))
        assert streams.locate(n) == divmod(n, epoch)


@settings(max_examples=40, deadline=None)
@given(splits(), st.integers(1, 3), st.integers(1, 7), st.data())
def test_each_step_of_a_stream_counts_once(made, batch, window, data):
    rows, split = made
    stride = data.draw(st.integers(1, window))
    length = split.steps // batch
    if length < max(2, stride):
        return
    streams = Streams(
        split, input="tokens", target="labels", batch=batch, window=window, stride=stride
    )
    labels = np.concatenate([row["labels"] for row in rows])
    windows = [streams.read(n) for n in range(streams.windows_in_epoch(0))]
    for b in range(batch):
        read = np.concatenate([w.target[w.valid[:, b], b] for w in windows])
        first = b * length
        np.testing.assert_array_equal(read, labels[first : first + length // stride * stride])


def test_streams_reset_where_sequences_begin(tmp_path):
    rows = sequences([4, 4])
    split = write(tmp_path / "d", rows).split("train")
    window = Streams(split, input="tokens", target="next", batch=1, window=8).read(0)
    assert np.flatnonzero(window.reset[:, 0]).tolist() == [0, 4]
    assert np.flatnonzero(~window.valid[:, 0]).tolist() == [3, 7]
    assert window.mask is None
    later = Streams(split, input="tokens", target="next", batch=1, window=2).read(1)
    assert later.reset is None


def test_the_first_windows_of_overlapping_streams_are_padded(tmp_path):
    split = write(tmp_path / "d", sequences([12])).split("train")
    streams = Streams(split, input="tokens", target="next", batch=1, window=6, stride=2)
    first = streams.read(0)
    assert first.mask[:, 0].tolist() == [False] * 4 + [True] * 2
    assert first.valid[:, 0].tolist() == [False] * 4 + [True] * 2
    assert np.flatnonzero(first.reset[:, 0]).tolist() == [4]
    assert streams.read(2).mask is None


def test_the_dtype_of_values_is_asked_for(tmp_path):
    split = write(tmp_path / "d", sequences([12])).split("train")
    kwargs = {"input": "values", "target": "next", "batch": 2, "window": 3, "dtype": "float64"}
    for windows in (Streams(split, **kwargs), Examples(split, seed=0, **kwargs)):
        window = windows.read(0)
        assert window.x.dtype == window.target.dtype == np.float64
        assert window.x.flags.c_contiguous


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"stride": 4}, "stride 4 must lie between 1 and the window"),
        ({"stride": 0}, "stride 0 must lie"),
        ({"batch": 0}, "batch 0"),
        ({"window": 0}, "window 0"),
        ({"batch": 7}, "12 steps, so 7 streams of 1, but a stream needs 3; take a batch of at"),
        ({"window": 40}, "12 steps, so 2 streams of 6, but a stream needs 40; give more data"),
        ({"target": "label"}, "did you mean 'labels'"),
    ],
)
def test_wrong_settings_of_streams(tmp_path, wrong, what):
    split = write(tmp_path / "d", sequences([12])).split("train")
    kwargs = {"input": "tokens", "target": "next", "batch": 2, "window": 3} | wrong
    with pytest.raises(JobError, match=what):
        Streams(split, **kwargs)


@settings(max_examples=80, deadline=None)
@given(
    splits(),
    st.sampled_from(list(COLUMNS)),
    st.sampled_from(TARGETS),
    st.integers(1, 4),
    st.integers(1, 7),
    st.integers(-3, 3),
    st.booleans(),
    st.data(),
)
def test_examples_are_the_naive_ones(made, x, target, batch, window, seed, shuffle, data):
    rows, split = made
    kwargs = {"input": x, "target": target, "batch": batch, "window": window, "seed": seed}
    ahead = int(target == "next")
    usable = [row for row in rows if len(row[x]) > ahead]
    if not usable:
        with pytest.raises(JobError, match="no sequence of two steps"):
            Examples(split, **kwargs)
        return
    examples = Examples(split, **kwargs, shuffle=shuffle)
    count = examples.windows_in_epoch(0)
    assert count == examples.windows_in_epoch(5)
    order = data.draw(st.permutations(range(min(2 * count, 30))))
    for n in order:
        picked = examples.examples(n)
        longest = max(len(usable[i][x]) - ahead for i in picked if i >= 0)
        index = n % count
        chunk = 0
        while index > chunk and (examples.examples(n - chunk - 1) == picked).all():
            chunk += 1
        low = chunk * window
        naive = empty(min(window, longest - low), batch, x, target)
        for b, i in enumerate(picked):
            for t in range(len(naive.x)):
                if i >= 0 and low + t < len(usable[i][x]) - ahead:
                    put(naive, t, b, usable, i, low + t, x, target, True)
            naive.reset[0, b] = chunk == 0
        same(examples.read(n), naive)
        lane = data.draw(st.sampled_from([slice(0, 1), slice(1, batch), slice(batch // 2, None)]))
        same(examples.read(n, lane), part(naive, lane))


@settings(max_examples=40, deadline=None)
@given(splits(), st.integers(1, 5), st.integers(1, 7), st.integers(0, 3), st.integers(0, 2))
def test_an_epoch_of_examples_reads_each_step_once(made, batch, window, seed, epoch):
    rows, split = made
    examples = Examples(
        split, input="tokens", target="labels", batch=batch, window=window, seed=seed
    )
    count = examples.windows_in_epoch(epoch)
    read = Counter()
    for n in range(epoch * count, (epoch + 1) * count):
        w = examples.read(n)
        assert w.valid.any()
        for t, b in zip(*np.nonzero(w.valid), strict=True):
            read[int(w.x[t, b]), int(w.target[t, b])] += 1
    wanted = Counter()
    for row in rows:
        wanted.update(zip(row["tokens"].tolist(), row["labels"].tolist(), strict=True))
    assert read == wanted


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    lengths = np.random.default_rng(0).integers(2, 200, 3000)
    return write(tmp_path_factory.mktemp("many") / "d", sequences(lengths)).split("train")


def test_an_epoch_is_shuffled_by_its_seed_and_number(many):
    kwargs = {"input": "tokens", "target": "next", "batch": 16, "window": 50}
    one, again = Examples(many, seed=1, **kwargs), Examples(many, seed=1, **kwargs)
    count = one.windows_in_epoch(0)
    far = 40 * count + 7
    same(one.read(far), again.read(far))
    other = Examples(many, seed=2, **kwargs)
    assert not all((one.examples(n) == other.examples(n)).all() for n in range(20))
    assert not all((one.examples(n) == one.examples(n + count)).all() for n in range(20))
    # Batches are mixed anew, not only put into another order.
    batches = [
        {frozenset(one.examples(n).tolist()) for n in range(epoch * count, (epoch + 1) * count)}
        for epoch in range(2)
    ]
    assert len(batches[0] & batches[1]) < 0.1 * len(batches[0])


def test_batches_of_like_length_leave_little_padding(many):
    shuffled = {"input": "tokens", "target": "next", "batch": 16, "window": 50, "seed": 0}
    padding = []
    for shuffle in (True, False):
        examples = Examples(many, **shuffled, shuffle=shuffle)
        valid = [examples.read(n).valid for n in range(examples.windows_in_epoch(0))]
        padding.append(1 - sum(v.sum() for v in valid) / sum(v.size for v in valid))
    assert padding[0] < 0.1 < padding[1]


def test_what_a_decoder_writes_is_sorted_too(tmp_path):
    """Of sequences of one length, a batch has those with like targets."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 40, 400)
    columns = {"tokens": Column.tokens(9), "said": Column.tokens(9, own=True)}
    with (
        mock.patch("rnnfarm.data.shards.BATCH_ROWS", 30),
        mock.patch("rnnfarm.data.writer.BATCH_STEPS", 5),
        DatasetWriter(tmp_path / "d", columns) as writer,
    ):
        for count in counts:
            row = {"tokens": rng.integers(0, 9, 12), "said": rng.integers(0, 9, count)}
            writer.append("train", row)
    split = open_dataset(tmp_path / "d").split("train")
    np.testing.assert_array_equal(split.own_counts("said"), counts)
    said = [split.own("said", start) for start in split.starts().tolist()]
    np.testing.assert_array_equal(split.all_own("said"), np.concatenate(said))
    examples = Examples(
        split, input="tokens", target="said", batch=16, window=12, seed=0, goal="decoded"
    )
    valid = [examples.read(n).valid for n in range(examples.windows_in_epoch(0))]
    assert sum(v.sum() for v in valid) == counts.sum() + 400
    assert 1 - (counts.sum() + 400) / sum(v.size for v in valid) < 0.1


def test_without_shuffling_examples_come_in_order(many):
    examples = Examples(
        many, input="tokens", target="next", batch=16, window=500, seed=0, shuffle=False
    )
    read = np.concatenate([examples.examples(n) for n in range(examples.windows_in_epoch(0))])
    np.testing.assert_array_equal(read[read >= 0], np.arange(3000))


# Steps whose target was not observed.

SEEN = {"values": Column.values(1), "target": Column.values(1), "observed": Column.tokens(2)}
SEEN["three"] = Column.tokens(3)


def gappy(path, lengths, seed=0, share=0.6, piece=1 << 20):
    """Sequences whose every value is the step's number in the split, observed now and then."""
    rng = np.random.default_rng(seed)
    rows, low = [], 0
    for length in lengths:
        steps = np.arange(low, low + length, dtype=np.float32)[:, None]
        seen = (rng.random(length) < share).astype(np.uint8)
        rows.append({"values": steps, "target": -steps, "observed": seen, "three": seen})
        low += length
    with DatasetWriter(path, SEEN) as writer:
        for row in rows:
            for at in range(0, len(row["values"]), piece):
                part = {name: values[at : at + piece] for name, values in row.items()}
                writer.append("train", part, at > 0)
    return np.concatenate([row["observed"] for row in rows]), open_dataset(path).split("train")


@pytest.mark.parametrize("target", ["next", "target"])
@pytest.mark.parametrize("kind", [Streams, Examples])
def test_a_step_that_was_not_observed_does_not_count(tmp_path, kind, target):
    seen, split = gappy(tmp_path / "d", [13, 1, 7, 2, 30], piece=4)
    more = {"stride": 3} if kind is Streams else {"seed": 3}
    settings = {"input": "values", "target": target, "batch": 2, "window": 5, **more}
    usual, masked = kind(split, **settings), kind(split, observed="observed", **settings)
    left_out = 0
    for n in range(usual.windows_in_epoch()):
        for rows in (slice(None), slice(1, 2)):
            a, b = usual.read(n, rows), masked.read(n, rows)
            step = np.rint(a.x[..., 0]).astype(int)
            counts = a.valid & (seen[np.minimum(step + (target == "next"), len(seen) - 1)] == 1)
            np.testing.assert_array_equal(b.valid, counts)
            left_out += np.count_nonzero(a.valid & ~counts)
            np.testing.assert_array_equal(b.target, np.where(counts[..., None], a.target, 0))
            same(Window(a.x, b.target, b.valid, a.mask, a.reset), b)
    assert left_out


@pytest.mark.parametrize("target", ["next", "target"])
def test_a_forecast_counts_where_its_whole_horizon_was_observed(tmp_path, target):
    lengths = [40, 3, 25]
    seen, split = gappy(tmp_path / "d", lengths, share=0.8)
    settings = {"input": "values", "batch": 4, "window": 6, "horizon": 3, "seed": 0}
    forecasts = Forecasts(split, target=target, observed="observed", **settings)
    wanted = [
        begin
        for low, high in ((0, 40), (40, 43), (43, 68))
        for begin in range(low, high - 8)
        if seen[begin + 6 : begin + 9].all()
    ]
    assert 0 < len(wanted) < 35 + 17
    assert forecasts.begins.tolist() == wanted
    found = []
    for n in range(forecasts.windows_in_epoch()):
        window = forecasts.read(n)
        found += window.x[0, window.valid[0], 0].tolist()
        sign = 1 if target == "next" else -1
        begins = window.x[0, window.valid[0]]
        np.testing.assert_array_equal(
            window.target[0, window.valid[0]], sign * (begins + np.arange(6, 9))
        )
    assert sorted(found) == wanted


def test_wrong_columns_of_what_was_observed(tmp_path):
    _, split = gappy(tmp_path / "d", [20], share=0.0)
    settings = {"input": "values", "target": "target", "batch": 1, "window": 4}
    for name, what in (("observd", "did you mean 'observed'"), ("three", "a token, 0 or 1")):
        with pytest.raises(JobError, match=what):
            Streams(split, observed=name, **settings)
    with pytest.raises(JobError, match="has no 3 observed steps in a row after a window of 4"):
        Forecasts(split, horizon=3, seed=0, observed="observed", **settings)

"""Vocabularies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnfarm.data import Vocabulary
from rnnfarm.errors import JobError


@given(st.text())
def test_bytes_come_back(text):
    if text.encode(errors="ignore").decode() == text:
        assert Vocabulary("byte").decode(Vocabulary("byte").encode(text)) == text


@given(st.text(alphabet="añ你🙂\n"))
def test_characters_come_back(text):
    vocabulary = Vocabulary("character", list("añ你🙂\n"))
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(st.lists(st.sampled_from(["one", "two", "\n"])))
def test_words_come_back(items):
    vocabulary = Vocabulary("word", ["<unk>", "\n", "one", "two"])
    ids = vocabulary.encode(" ".join(items))
    assert [vocabulary.entries[i] for i in ids] == items
    assert vocabulary.encode(vocabulary.decode(ids)).tolist() == ids.tolist()


def test_text_outside_the_vocabulary():
    with pytest.raises(JobError, match="the character 'z', which is not in the data's vocabulary"):
        Vocabulary("character", ["a", "b"]).encode("az")
    with pytest.raises(JobError, match="the word 'cat'"):
        Vocabulary("word", ["dog"]).encode("dog cat")
    assert Vocabulary("word", ["<unk>", "dog"]).encode("dog cat").tolist() == [1, 0]
    assert Vocabulary("character", ["<unk>", "a"]).encode("az你").tolist() == [1, 0, 0]


def test_a_vocabulary_guesses_no_case():
    assert Vocabulary("word", ["<unk>", "dog"]).encode("Dog dog").tolist() == [0, 1]


def test_bytes_that_are_no_text():
    assert Vocabulary("byte").decode([0x61, 0xFF]) == "a\ufffd"
    assert Vocabulary("byte").size == 256


def test_text_comes_piece_by_piece():
    assert list(Vocabulary("byte").decode_each("aß".encode())) == ["a", "ß", ""]
    words = Vocabulary("word", ["<unk>", "\n", "one", "two"])
    assert list(words.decode_each([2, 3, 1, 3, 0])) == ["one", " two", "\n", "two", " <unk>"]
    assert list(Vocabulary("character", ["a", "b"]).decode_each([1, 0])) == ["b", "a"]

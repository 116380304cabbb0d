"""Text to numbers and back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.errors import UserError
from steersman.vocabulary import (
    BEGIN,
    END,
    MARKS,
    PAD,
    UNKNOWN,
    Characters,
    Subwords,
    Words,
    vocabulary_from_json,
)

TEXTS = ["a man rides a horse.", "two men ride horses!", "a dog, a cat - and a man's hat"] * 3
KINDS = {"characters": Characters(), "words": Words(), "subwords": Subwords(400)}


@pytest.fixture(scope="module", params=KINDS)
def learned(request):
    return KINDS[request.param].learn(TEXTS)


def test_what_it_was_trained_on_comes_back(learned):
    for text, numbers in zip(TEXTS, learned.encode_all(TEXTS), strict=True):
        assert UNKNOWN not in numbers
        assert learned.decode([BEGIN, *numbers, END, PAD, 7]) == text
        assert learned.encode(text) == numbers
        assert len(learned.pieces(numbers)) == len(numbers)


def test_numbers_are_those_of_the_vocabulary(learned):
    numbers = [n for text in learned.encode_all(TEXTS) for n in text]
    assert len(MARKS) <= min(numbers) <= max(numbers) < len(learned)


def test_json_gives_the_same_vocabulary(learned):
    again = vocabulary_from_json(json.loads(json.dumps(learned.to_json())))
    assert again.spec == learned.spec
    assert len(again) == len(learned)
    assert again.encode_all(TEXTS) == learned.encode_all(TEXTS)


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_subwords_give_back_any_text(text):
    learned = SUBWORDS
    assert learned.decode(learned.encode(text)) == text.removeprefix(" ")


SUBWORDS = Subwords(300).learn(TEXTS)


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(TEXTS), max_size=5))
def test_without_dropout_all_merges_are_made(texts):
    assert SUBWORDS.varied(texts, 0.0, "0").encode_all(0) == SUBWORDS.encode_all(texts)


def test_dropped_merges_cut_a_text_in_other_ways_that_are_the_same_text():
    varied = SUBWORDS.varied(TEXTS, 0.3, "0")
    times = [varied.encode_all(time) for time in range(20)]
    assert times[3] == SUBWORDS.varied(TEXTS, 0.3, "0").encode_all(3)
    assert len({str(found) for found in times}) == 20
    assert all(SUBWORDS.decode(n) == text for found in times for n, text in zip(found, TEXTS, strict=True))
    single = SUBWORDS.varied(TEXTS, 1.0, "0").encode_all(0)
    assert [len(n) for n in single] == [len(text) + 1 for text in TEXTS]


def test_a_merge_is_left_out_by_that_chance():
    """" ab" takes two merges, the second of which only comes after the first."""
    learned = Subwords(300).learn(["ab " * 9])
    whole, drawn = learned.encode("ab"), [learned.varied(["ab"], 0.25, str(seed)).encode_all(0) for seed in range(2000)]
    assert len(whole) == 1
    assert sum(cut == [whole] for cut in drawn) / len(drawn) == pytest.approx(0.75**2, abs=0.04)


def test_what_is_unknown_is_shown_as_such():
    words = Words().learn(TEXTS)
    assert words.encode("a zebra rides").count(UNKNOWN) == 1
    assert words.decode(words.encode("a zebra rides")) == "a \ufffd rides"
    assert Characters().learn(TEXTS).encode("ä") == [UNKNOWN]


def test_the_commonest_are_kept():
    words = Words(size=len(MARKS) + 2).learn(["b b b c c a", "b c a a a a"])
    assert words.data() == [" a", " b"]
    assert Words(min_count=4).learn(["b b b b c c c"]).data() == [" b"]


def test_lower_case_if_asked():
    assert Words(lower=True).learn(["The the"]).data() == [" the"]
    subwords = Subwords(300, lower=True).learn(["The man"] * 5)
    assert subwords.decode(subwords.encode("THE MAN")) == "the man"


@pytest.mark.parametrize("spec", [Characters(min_count=9), Words(min_count=9), Subwords(min_count=9)])
def test_nothing_above_the_minimum_count_is_said(spec):
    with pytest.raises(UserError, match="occurs 9 times in the training text"):
        spec.learn(["ab cd"])


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"spec": {"kind": "Words"}},
        {"spec": {"kind": "GRU", "hidden": 3, "reset": "after"}, "data": []},
        {"spec": {"kind": "Words"}, "data": [1, 2]},
        {"spec": {"kind": "Words"}, "data": ["a", "a"]},
        {"spec": {"kind": "Subwords"}, "data": {"model": "?"}},
    ],
)
def test_damaged_json_is_a_message(data):
    with pytest.raises(UserError, match="vocabulary"):
        vocabulary_from_json(data)

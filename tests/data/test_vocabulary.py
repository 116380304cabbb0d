"""Text to numbers and back."""

import json
from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.data.vocabulary import BEGIN, END, MARKS, PAD, UNKNOWN, Characters, Subwords, Words, vocabulary_from_json
from steersman.errors import UserError

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


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(TEXTS), seed=st.integers(0, 9))
def test_left_out_merges_leave_the_same_text(text, seed):
    assert SUBWORDS.encode_dropped(text, 0.0, Random(seed)) == SUBWORDS.encode(text)
    for dropout in (0.3, 1.0):
        numbers = SUBWORDS.encode_dropped(text, dropout, Random(seed))
        assert numbers == SUBWORDS.encode_dropped(text, dropout, Random(seed))
        assert SUBWORDS.decode(numbers) == text.removeprefix(" ")
    spaced = text if text.startswith(" ") or not text else f" {text}"
    assert len(numbers) == len(spaced.encode())


def test_a_merge_is_left_out_by_that_chance():
    """ " ab" takes two merges, the second of which only comes after the first."""
    learned, chance = Subwords(300).learn(["ab " * 9]), Random(0)
    whole, drawn = learned.encode("ab"), [learned.encode_dropped("ab", 0.25, chance) for _ in range(2000)]
    assert len(whole) == 1
    assert sum(cut == whole for cut in drawn) / len(drawn) == pytest.approx(0.75**2, abs=0.04)


def test_merges_are_left_out_as_the_paper_has_it():
    """Algorithm 1: before each merge every possible one is left out by chance, and the first of the others is made."""
    learned, chance = Subwords(400).learn(["abab", "abab", "ab"]), Random(0)
    ranks = {tuple(pair): rank for rank, pair in enumerate(learned.data()["model"]["merges"])}

    def plain(pieces: list[str]) -> tuple[str, ...]:
        found = [(ranks[p], i) for i, p in enumerate(pairwise(pieces)) if p in ranks and chance.random() >= 0.4]
        if not found:
            return tuple(pieces)
        _, i = min(found)
        return plain([*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]])

    numbers, draws = learned.data()["model"]["vocab"], 6000
    wanted = Counter(tuple(numbers[p] + len(MARKS) for p in plain(list("\u0120ababxab"))) for _ in range(draws))
    found = Counter(tuple(learned.encode_dropped("ababxab", 0.4, chance)) for _ in range(draws))
    assert len(wanted) > 5
    for cut in wanted | found:
        assert found[cut] / draws == pytest.approx(wanted[cut] / draws, abs=0.03)


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
        {"spec": {"kind": "Subwords"}, "data": {"model": {"continuing_subword_prefix": "x" * 30}}},
    ],
)
def test_damaged_json_is_a_message(data):
    with pytest.raises(UserError, match="vocabulary"):
        vocabulary_from_json(data)


def test_a_panic_of_the_library_is_a_message(monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(self, data):
        raise PanicException("range end index 10 out of range")

    monkeypatch.setattr(Subwords, "restored", panic)
    with pytest.raises(UserError, match=r"damaged.*range end index 10"):
        vocabulary_from_json({"spec": {"kind": "Subwords"}, "data": {}})

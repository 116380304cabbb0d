"""What is looked at, by hand and for any raggedness."""

from math import exp, sqrt, tanh

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.data.batches import mask_of
from steersman.nn.attention import Additive, Keyed, Multiplicative, weighted

LOOKS = {"multiplicative": Multiplicative(), "additive": Additive(5)}


def softmax(*scores):
    total = sum(exp(s) for s in scores)
    return [exp(s) / total for s in scores]


def test_the_multiplicative_one_by_hand():
    look = Multiplicative().build(2, 2)
    with torch.no_grad():
        look.key.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        values = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
        memory = look.memory(values, torch.tensor([[True, True, False]]))
        context, weights = look(torch.tensor([[[1.0, 1.0]]]), memory)
    a, b = softmax(1 / sqrt(2), 2 / sqrt(2))
    assert weights[0, 0].tolist() == pytest.approx([a, b, 0])
    assert context[0, 0].tolist() == pytest.approx([a, b])


def test_the_additive_one_by_hand():
    look = Additive(1).build(1, 1)
    with torch.no_grad():
        for layer, number in ((look.query, 0.5), (look.key, 2.0), (look.out, 3.0)):
            layer.weight.fill_(number)
        look.query.bias.fill_(0.1)
        memory = look.memory(torch.tensor([[[1.0], [-1.0]]]), torch.ones(1, 2, dtype=torch.bool))
        context, weights = look(torch.tensor([[[2.0]]]), memory)
    a, b = softmax(3 * tanh(1.1 + 2), 3 * tanh(1.1 - 2))
    assert weights[0, 0].tolist() == pytest.approx([a, b])
    assert context.item() == pytest.approx(a - b)


@pytest.mark.parametrize("kind", LOOKS)
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), extra=st.integers(0, 3))
def test_padding_gets_no_attention_whatever_it_holds(kind, lengths, extra):
    torch.manual_seed(0)
    look, longest = LOOKS[kind].build(4, 3), max(lengths) + extra
    there = mask_of(torch.tensor(lengths), longest)
    values = torch.randn(len(lengths), longest, 3)
    query = torch.randn(len(lengths), 2, 4)
    context, weights = look(query, look.memory(values, there))
    assert weights.masked_select(~there.unsqueeze(1)).eq(0).all()
    torch.testing.assert_close(weights.sum(2), torch.ones(len(lengths), 2))
    spoiled = look.memory(values.masked_fill(~there.unsqueeze(2), torch.nan), there)
    assert torch.equal(look(query, spoiled)[0], context)
    for row, length in enumerate(lengths):
        part = slice(row, row + 1)
        alone = look(query[part], look.memory(values[part, :length], there[part, :length]))
        torch.testing.assert_close(alone[0], context[part])


def test_where_there_is_nothing_to_look_at_the_context_is_zero():
    nothing = Keyed(torch.zeros(2, 0, 3), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool))
    look = Multiplicative().build(4, 3)
    assert look(torch.randn(2, 1, 4), nothing)[0].tolist() == [[[0.0] * 3]] * 2
    context, weights = weighted(torch.zeros(1, 1, 2), torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool))
    assert context.eq(0).all()
    assert weights.eq(0).all()

"""The cores against PyTorch's layers and cells, on PyTorch's own inputs, and against ONNX's own node tests."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from steersman.nn import kernels
from steersman.nn.cores import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    BidirectionalCore,
    LSTMCore,
    MinGRU,
    Stack,
    StackCore,
    Zoneout,
    from_torch,
    map_state,
    reverse,
    state_tensors,
    to_torch,
)
from steersman.nn.cores.torch_layers import _TORCH_NAMES

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
TOLERANCE = {torch.float64: {"atol": 1e-10, "rtol": 1e-10}, torch.float32: {"atol": 1e-5, "rtol": 1e-5}}


@pytest.fixture(autouse=True)
def _kernels_for_few_steps(monkeypatch):
    monkeypatch.setattr(kernels, "FEW", 0)


def cells(core) -> list:
    """Lowest first, forwards before backwards: the order of torch's weights and states."""
    if isinstance(core, StackCore):
        return [cell for layer in core.cores for cell in cells(layer)]
    return [*cells(core.forwards), *cells(core.backwards)] if isinstance(core, BidirectionalCore) else [core]


def theirs(core, state):
    """Our state as torch gives it: (layers * directions, batch, hidden); of an LSTM h and c."""
    tensors = state_tensors(state)
    if not isinstance(cells(core)[0], LSTMCore):
        return torch.stack(tensors)
    return torch.stack(tensors[::2]), torch.stack(tensors[1::2])


def ours(core, state, batch: int):
    """Torch's state as our core takes it; none is zeros."""
    if state is None:
        return core.initial(batch)
    rows = zip(*state, strict=True) if isinstance(state, tuple) else ((h,) for h in state)
    tensors = iter([tensor for row in rows for tensor in row])
    return map_state(lambda _: next(tensors), core.initial(batch))


def run(layer, core, x, state=None):
    """Our core on what torch's layer takes (packed, unbatched, time first), its results as torch gives them."""
    lengths, packed = None, x
    if isinstance(packed, PackedSequence):
        x, lengths = pad_packed_sequence(packed, batch_first=True)
        y, after = core(x, ours(core, state, len(x)), lengths)
        rows = [y[i, :n] for i, n in enumerate(lengths)]
        return nn.utils.rnn.pack_sequence(rows, enforce_sorted=False).data, theirs(core, after)
    alone = x.ndim == 2
    if alone:
        x, state = x.unsqueeze(0), None if state is None else map_state(lambda t: t.unsqueeze(1), state)
    elif not layer.batch_first:
        x = x.transpose(0, 1)
    y, after = core(x, ours(core, state, len(x)))
    if alone:
        return y[0], map_state(lambda t: t.squeeze(1), theirs(core, after))
    return y if layer.batch_first else y.transpose(0, 1), theirs(core, after)


def flat(outputs) -> list[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else [t for part in outputs for t in flat(part)]


def gradients(outputs, leaves) -> list[torch.Tensor]:
    loss = sum((t * torch.linspace(-1, 2, t.numel()).to(t).view_as(t)).sum() for t in outputs)
    return list(torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True))


def weights(layer, core) -> tuple[list, list]:
    """Parameters of torch's layer, and ours that correspond."""
    pairs = []
    names = [f"l{d}{way}" for d in range(layer.num_layers) for way in ("", "_reverse")[: 1 + layer.bidirectional]]
    for cell, name in zip(cells(core), names, strict=True):
        for mine, other in _TORCH_NAMES.items():
            if hasattr(layer, f"{other}_{name}"):
                pairs.append((getattr(layer, f"{other}_{name}"), getattr(cell, mine)))
    assert len(pairs) == len(list(layer.parameters()))
    return [a for a, _ in pairs], [b for _, b in pairs]


def assert_equal(found, wanted, dtype):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE[dtype])


KINDS = {
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
    "lstm with projection": (nn.LSTM, {"proj_size": 3}),
}


def layer_of(kind: str, num_layers: int, bidirectional: bool, bias: bool = True, dtype=torch.float64) -> nn.RNNBase:
    torch.manual_seed(num_layers)
    torch_kind, options = KINDS[kind]
    options = options | {"bidirectional": bidirectional, "bias": bias, "dtype": dtype}
    return torch_kind(4, 7, num_layers, batch_first=True, **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forwards", "both ways"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_from_torch_and_to_torch_keep_outputs_and_weights(kind, num_layers, bidirectional, bias, dtype):
    layer = layer_of(kind, num_layers, bidirectional, bias, dtype)
    core = from_torch(layer)
    x = torch.randn(3, 6, 4, dtype=dtype)
    state = map_state(torch.randn_like, layer(x)[1])
    with torch.no_grad():
        wanted = flat(layer(x, state))
        assert_equal(flat(run(layer, core, x, state)), wanted, dtype)
        back = to_torch(core)
        assert_equal(flat(back(x, state)), wanted, dtype)
    for name, weight in back.named_parameters():
        assert torch.equal(weight, getattr(layer, name, torch.zeros_like(weight)))
    for name, weight in from_torch(back).state_dict().items():
        assert torch.equal(weight, core.state_dict()[name])
        assert weight.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forwards", "both ways"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_ragged_batch_gives_what_a_packed_one_gives_torch(kind, bidirectional, dtype):
    layer = layer_of(kind, 2, bidirectional, dtype=dtype)
    core = from_torch(layer)
    rows = [torch.randn(n, 4, dtype=dtype, requires_grad=True) for n in (2, 5, 1, 5)]
    packed = nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
    y, after = layer(packed)
    wanted, found = flat((y.data, after)), flat(run(layer, core, packed))
    assert_equal(found, wanted, dtype)
    a, b = weights(layer, core)
    assert_equal(gradients(found, [*rows, *b]), gradients(wanted, [*rows, *a]), dtype)


def test_dropout_and_training_go_along():
    layer = nn.GRU(3, 4, 2, dropout=0.25, batch_first=True).eval()
    core = from_torch(layer)
    assert isinstance(core, StackCore)
    assert (core.dropout, core.training) == (0.25, False)
    back = to_torch(core.train())
    assert (back.dropout, back.training, back.batch_first) == (0.25, True, True)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_layer_that_is_not_batch_first_gets_a_word(kind):
    layer, x = kind(4, 7), torch.randn(6, 3, 4)
    with pytest.warns(UserWarning, match=r"takes \(time, batch, feature\) and its core \(batch, time, feature\)"):
        core = from_torch(layer)
    y, _ = core(x.transpose(0, 1), core.initial(3))
    assert_equal([y.transpose(0, 1)], [layer(x)[0]], torch.float32)


def test_what_is_frozen_stays_frozen_there_and_back():
    layer = nn.LSTM(4, 7, 2, batch_first=True, bidirectional=True)
    for name, weight in layer.named_parameters():
        weight.requires_grad_("_l1" in name and "bias" not in name)
    core = from_torch(layer)
    a, b = weights(layer, core)
    assert [t.requires_grad for t in a] == [t.requires_grad for t in b]
    back = dict(to_torch(core).named_parameters())
    assert all(back[name].requires_grad == weight.requires_grad for name, weight in layer.named_parameters())
    alone = from_torch(nn.GRU(4, 7, bias=False, batch_first=True).requires_grad_(False))
    assert not any(p.requires_grad for p in alone.parameters())


class Named(nn.GRU):
    """A subclass that computes what its parent does."""


class Doubled(nn.GRU):
    def forward(self, *given):
        y, h = super().forward(*given)
        return 2 * y, h


def test_a_subclass_that_computes_the_same_is_taken():
    layer, x = Named(4, 7, batch_first=True), torch.randn(3, 6, 4)
    core = from_torch(layer)
    assert_equal([core(x, core.initial(3))[0]], [layer(x)[0]], torch.float32)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nn.LSTMCell(4, 7), "expected nn.RNN, nn.GRU or nn.LSTM, got LSTMCell"),
        (lambda: nn.Linear(4, 7), "expected nn.RNN, nn.GRU or nn.LSTM, got Linear"),
        (lambda: torch.ao.nn.quantizable.LSTM(4, 7), "expected nn.RNN, nn.GRU or nn.LSTM, got LSTM"),
        (lambda: nn.GRU, "expected nn.RNN, nn.GRU or nn.LSTM, got type"),
        (lambda: None, "expected nn.RNN, nn.GRU or nn.LSTM, got NoneType"),
        (lambda: Doubled(4, 7, batch_first=True), "expected nn.GRU; Doubled has a `forward` of its own"),
        (lambda: parametrizations.weight_norm(plain(), "weight_hh_l0"), "weight_hh_l0 of this LSTM is computed"),
        (lambda: parametrizations.spectral_norm(plain(), "weight_ih_l0"), "weight_ih_l0 of this LSTM is computed"),
        (lambda: nn.utils.weight_norm(plain(), "weight_hh_l0"), "weight_hh_l0 of this LSTM is computed"),
        (lambda: prune.l1_unstructured(plain(), "weight_hh_l0", 0.5), "weight_hh_l0 of this LSTM is computed"),
    ],
)
def test_what_from_torch_does_not_know_is_refused(make, said):
    with pytest.raises(ValueError, match=f"from_torch: .*{said}"):
        from_torch(make())


def plain() -> nn.LSTM:
    return nn.LSTM(4, 7, batch_first=True)


@pytest.mark.parametrize(
    "spec",
    [
        LSTM(5, peepholes=True),
        LSTM(5, layer_norm=True),
        GRU(5, reset="before"),
        MinGRU(5),
        Zoneout(LSTM(5)),
        Stack((LSTM(5), GRU(5))),
        Stack((LSTM(5), LSTM(6))),
        Stack((Bidirectional(GRU(5)), GRU(5))),
        Stack((GRU(5), GRU(5)), residual=True),
        Stack((GRU(5), GRU(5)), locked=True, dropout=0.5),
        Bidirectional(Stack((GRU(5), GRU(5)))),
    ],
    ids=repr,
)
def test_what_torch_has_no_layer_for_is_refused(spec):
    with pytest.raises(ValueError, match="to_torch: torch has no layer"):
        to_torch(spec.build(3))


@pytest.fixture(scope="module")
def module_db():
    """PyTorch's own table of modules and their inputs."""
    pytest.importorskip("expecttest", reason="PyTorch's table of modules imports it")
    from torch.testing._internal.common_modules import module_db

    return {info.module_cls: info for info in module_db}


@pytest.mark.filterwarnings("ignore:from_torch")  # Some are time first.
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_pytorchs_inputs_of_layers_give_its_outputs_and_gradients(module_db, kind, training, dtype):
    torch.manual_seed(0)
    info = module_db[kind]
    more = {} if kind is nn.LSTM else {"with_packed_sequence": True}
    samples = info.module_inputs_func(info, "cpu", dtype, True, training, **more)
    assert len(samples) >= 32
    for sample in samples:
        layer = kind(*sample.constructor_input.args, **sample.constructor_input.kwargs).to(dtype).train(training)
        core = from_torch(layer)
        given = sample.forward_input.args
        y, after = layer(*given)
        wanted = flat((y.data if isinstance(y, PackedSequence) else y, after))
        found = flat(run(layer, core, *given))
        assert_equal(found, wanted, dtype)
        leaves = [t.data if isinstance(t, PackedSequence) else t for t in flat_inputs(given)]
        a, b = weights(layer, core)
        assert_equal(gradients(found, [*leaves, *b]), gradients(wanted, [*leaves, *a]), dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_pytorchs_inputs_of_cells_give_its_outputs_and_gradients(module_db, kind, training, dtype):
    torch.manual_seed(0)
    info = module_db[kind]
    samples = info.module_inputs_func(info, "cpu", dtype, True, training)
    assert len(samples) >= 2
    for sample in samples:
        cell = kind(*sample.constructor_input.args, **sample.constructor_input.kwargs).to(dtype).train(training)
        options = {"nonlinearity": cell.nonlinearity} if kind is nn.RNNCell else {}
        spec = {nn.RNNCell: RNN, nn.GRUCell: GRU, nn.LSTMCell: LSTM}[kind](cell.hidden_size, **options)
        core = spec.build(cell.input_size).to(dtype)
        core.load_state_dict(cell.state_dict())
        x, state = sample.forward_input.args
        wanted = flat(cell(x, state))
        found = flat(core.step(x.unsqueeze(0), tuple(t.unsqueeze(0) for t in flat(state)))[1])
        found = [t[0] for t in found]
        assert_equal(found, wanted, dtype)
        leaves = flat(sample.forward_input.args)
        names = [name for name, _ in cell.named_parameters()]
        a, b = ([module.get_parameter(name) for name in names] for module in (cell, core))
        assert_equal(gradients(found, [*leaves, *b]), gradients(wanted, [*leaves, *a]), dtype)


def flat_inputs(given) -> list:
    """As `flat`, with packed sequences whole."""
    if isinstance(given, torch.Tensor | PackedSequence):
        return [given]
    return [t for part in given for t in flat_inputs(part)]


ONNX_CASES = [
    *(f"test_gru_{what}" for what in ("defaults", "with_initial_bias", "seq_length", "batchwise", "reverse",
                                      "bidirectional")),
    *(f"test_lstm_{what}" for what in ("defaults", "with_initial_bias", "with_peepholes", "batchwise", "reverse",
                                       "bidirectional")),
    *(f"test_simple_rnn_{what}" for what in ("defaults", "with_initial_bias", "batchwise", "reverse",
                                             "bidirectional")),
    "test_rnn_seq_length",
]  # fmt: skip


@pytest.fixture(scope="module")
def onnx_cases():
    node = pytest.importorskip("onnx.backend.test.case.node")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Other operators' cases overflow on purpose.
        cases = node.collect_testcases(None)
    return {case.name: case for case in cases if case.model.graph.node[0].op_type in ("RNN", "LSTM", "GRU")}


def test_these_are_all_of_onnxs_cases(onnx_cases):
    assert set(onnx_cases) == set(ONNX_CASES)


@pytest.mark.parametrize("name", ONNX_CASES)
def test_onnxs_own_node_tests(onnx_cases, name):
    case = onnx_cases[name]
    node = case.model.graph.node[0]
    for arrays, wanted in case.data_sets:
        given = dict(zip((i for i in node.input if i), map(torch.tensor, arrays), strict=True))
        found = run_node(node, given)
        for output, array in zip((o for o in node.output if o), wanted, strict=True):
            torch.testing.assert_close(found[output], torch.tensor(array), rtol=1e-5, atol=1e-6)


ORDER = {"RNN": [0], "LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}
"""Where our gates (LSTM i f g o, GRU r z n) stand among ONNX's (i o f c; z r h)."""


def run_node(node, given: dict) -> dict:
    """What ONNX's RNN, LSTM or GRU gives, by our cores: one for each direction."""
    import onnx

    options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert options.keys() <= {"direction", "hidden_size", "layout", "linear_before_reset"}
    batch_first, hidden = options.get("layout", 0), options["hidden_size"]
    swap = (lambda t: t) if batch_first else (lambda t: t.transpose(0, 1))
    x = swap(given["X"])
    lengths = given.get("sequence_lens", torch.full((len(x),), x.shape[1])).long()
    ways = {b"forward": [False], b"reverse": [True], b"bidirectional": [False, True]}
    outputs, states = [], []
    for i, backwards in enumerate(ways[options.get("direction", b"forward")]):
        core = core_of(node.op_type, options, {k: v[i] for k, v in given.items() if k in "WRBP"}, hidden)
        initial = [swap(given[name])[:, i] for name in ("initial_h", "initial_c") if name in given]
        state = tuple(initial) if initial else core.initial(len(x))
        y, state = core(reverse(x, lengths) if backwards else x, state, lengths)
        outputs.append(reverse(y, lengths) if backwards else y)
        states.append(state)
    y = torch.stack(outputs, 2)  # batch time direction hidden
    found = {"Y": y if batch_first else y.permute(1, 2, 0, 3)}
    for name, parts in zip(("Y_h", "Y_c"), zip(*states, strict=True), strict=False):
        found[name] = torch.stack(parts, 1 if batch_first else 0)
    return found


def core_of(kind: str, options: dict, weights: dict, hidden: int):
    """Our core with ONNX's weights of one direction."""
    spec = {
        "RNN": RNN(hidden),
        "LSTM": LSTM(hidden, peepholes="P" in weights),
        "GRU": GRU(hidden, reset="after" if options.get("linear_before_reset") else "before"),
    }[kind]
    core, order = spec.build(weights["W"].shape[1]), ORDER[kind]

    def gates(matrix, at):
        parts = matrix.split(hidden)
        return torch.cat([parts[k] for k in at])

    bias = weights.get("B", torch.zeros(2 * len(order) * hidden)).chunk(2)
    found = {"weight_ih": weights["W"], "weight_hh": weights["R"], "bias_ih": bias[0], "bias_hh": bias[1]}
    found = {name: gates(value, order) for name, value in found.items()}
    if "P" in weights:
        found["peepholes"] = gates(weights["P"], [0, 2, 1]).view(3, hidden)  # i o f
    core.load_state_dict(found)
    return core.eval()

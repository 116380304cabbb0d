"""Heads that say how sure they are, beside PyTorch's and SciPy's distributions."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.utils.class_weight import compute_class_weight
from small import built, small, trainer
from torch import distributions as td
from torch.nn import functional as F

from steersman.config import from_json, to_json
from steersman.data.batches import Batch
from steersman.errors import UserError
from steersman.export.folder import disagreement
from steersman.export.graph import step_graph
from steersman.nn.cores import GRU
from steersman.nn.encoders import Identity
from steersman.nn.heads import (
    Classification,
    Counts,
    Gaussian,
    GaussianHead,
    MixtureDensity,
    MultiLabel,
    NextSymbol,
    Quantiles,
    Regression,
    StudentT,
    calibrates,
    distributions,
    tells_distribution,
    tells_numbers,
)
from steersman.nn.heads.special import incomplete_beta, student_cdf
from steersman.nn.model import Flavour, Network
from steersman.training.trainer import _Exploded

TWO = ("a", "b")
PEN = MixtureDensity(("pen",), 3, "full", end=True)
HEADS = {
    "gaussian": Gaussian(TWO),
    "student": StudentT(TWO),
    "quantiles": Quantiles(TWO),
    "lopsided quantiles": Quantiles(TWO, levels=(0.6, 0.8, 0.99)),
    "mixture": MixtureDensity(TWO, 3),
    "full mixture": MixtureDensity(TWO, 3, "full"),
    "pen": PEN,
    "counts": Counts(TWO),
    "labels": MultiLabel(TWO),
}
SURE = [name for name in HEADS if name != "labels"]
"""Those that say a distribution of numbers."""


def truths(spec, rows: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if isinstance(spec, Counts):
        return rng.negative_binomial((2, 30), (0.2, 0.5), (rows, 2)).astype(float)
    if isinstance(spec, MultiLabel):
        return (rng.random((rows, 2)) < (0.3, 0.9)).astype(float)
    y = rng.normal((3, -40), (2, 0.1), (rows, 2))
    return np.column_stack([y, rng.random(rows) < 0.2]).astype(float) if spec == PEN else y


def head_of(spec, seed: int = 0):
    """A head in float64 with its normaliser, what it says of some steps, and what was true."""
    torch.manual_seed(seed)
    y = truths(spec)
    head = spec.build(4, (3,) if spec == PEN else ()).double()
    head.fit(y)
    raw = torch.randn(len(y), head.linear.out_features, dtype=torch.float64)
    return head, raw, torch.from_numpy(y)


def close(a, b, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), atol=tolerance, rtol=tolerance)


def law_of(spec, head, raw):
    """The distributions of PyTorch that a head says, each number's in its target's units."""
    more, point = head.parameters_of(raw), head.point(raw)
    if isinstance(spec, Gaussian):
        return td.Normal(point, more["scale"])
    if isinstance(spec, StudentT):
        return td.StudentT(more["freedom"], point, more["scale"])
    if isinstance(spec, Counts):
        size = 1 / more["dispersion"]
        return td.NegativeBinomial(size, point / (size + point))
    kinds = td.Categorical(more["weights"].unsqueeze(-2).expand(-1, head.plain, -1))
    return td.MixtureSameFamily(kinds, td.Normal(more["means"].mT, more["scales"].mT))


@pytest.mark.parametrize("name", ["gaussian", "student", "mixture", "counts"])
def test_likelihoods_are_those_of_torchs_distributions(name):
    head, raw, y = head_of(spec := HEADS[name])
    law = law_of(spec, head, raw)
    close(head.log_prob(raw, y), law.log_prob(y))
    if name != "mixture":
        close(head.log_likelihood(raw, y), law.log_prob(y).sum(-1))
        shift = 0.0 if name == "counts" else head.deviation.log()
        close(head.loss(raw, y), -(law.log_prob(y) + shift).mean(-1))


@pytest.mark.parametrize("name", ["mixture", "full mixture", "pen"])
def test_a_mixture_is_of_all_numbers_together(name):
    head, raw, y = head_of(HEADS[name])
    more, plain = head.parameters_of(raw), head.plain
    corners = torch.diag_embed(more["scales"] ** 2)
    if "correlation" in more:
        corners[..., 0, 1] = corners[..., 1, 0] = more["correlation"] * more["scales"].prod(-1)
    law = td.MixtureSameFamily(td.Categorical(more["weights"]), td.MultivariateNormal(more["means"], corners))
    expected = law.log_prob(y[:, :plain])
    if name == "pen":
        expected = expected + td.Bernoulli(head.point(raw)[:, 2]).log_prob(y[:, 2])
    close(head.log_likelihood(raw, y), expected)
    close(head.loss(raw, y), -expected - head.deviation[:plain].log().sum())
    close(head.point(raw)[:, :plain], law.mean)


def test_several_labels_are_each_a_binary_cross_entropy():
    head, raw, y = head_of(HEADS["labels"])
    close(head.loss(raw, y), F.binary_cross_entropy(head.probabilities(raw), y, reduction="none").mean(-1))
    close(head.point(raw), raw.sigmoid())


def test_the_pinball_loss_is_least_at_the_quantiles():
    head, raw, y = head_of(HEADS["quantiles"])
    said = (head.parameters_of(raw)["quantiles"] - head.mean[:, None]) / head.deviation[:, None]
    assert (said.diff(dim=-1) > 0).all()
    error = head.standard(y)[..., None] - said
    close(head.loss(raw, y), torch.where(error > 0, head.levels * error, (head.levels - 1) * error).mean((-1, -2)))
    close(head.point(raw), head.parameters_of(raw)["quantiles"][..., 3])
    close(head.quantiles(raw, head.levels.tolist()), head.parameters_of(raw)["quantiles"])


def test_quantiles_never_cross_whatever_comes():
    head = HEADS["quantiles"].build(4)
    for size in (0.0, 1.0, 1e2, 1e4):
        said = head.parameters_of(size * torch.randn(500, head.linear.out_features))["quantiles"]
        assert (said.diff(dim=-1) >= 0).all()


def test_a_step_of_the_median_learns_the_median_and_the_rest_their_quantiles():
    """Skewed numbers and no input: what is learned is their quantiles."""
    y = torch.from_numpy(np.random.default_rng(0).exponential(2, (1000, 1)))
    head = Quantiles(levels=(0.1, 0.5, 0.9)).build(1).double()
    head.fit(y.numpy())
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=25, line_search_fn="strong_wolfe")

    def look():
        optimiser.zero_grad()
        (loss := head.loss(head(torch.zeros(len(y), 1, dtype=y.dtype)), y).mean()).backward()
        return loss

    optimiser.step(look)
    found = head.parameters_of(head(torch.zeros(1, dtype=y.dtype)))["quantiles"][0].detach()
    np.testing.assert_allclose(found, np.quantile(y, (0.1, 0.5, 0.9)), rtol=0.05)


@pytest.mark.parametrize("name", HEADS)
def test_gradients_are_those_of_the_loss(name):
    head, raw, y = head_of(HEADS[name])
    assert torch.autograd.gradcheck(lambda r: head.loss(r, y[:4]), (2 * raw[:4].clone().requires_grad_(),))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_loss_and_gradient_are_finite_for_whatever_comes(name, kind):
    spec = HEADS[name]
    head = head_of(spec)[0].float()
    y = torch.from_numpy(truths(spec)).float()
    if name not in ("labels", "counts"):
        y[:, :2] = torch.cat((y[:20, :2], y[:20, :2] * 1e6, y[:20, :2] * -1e12))
    if name == "counts":
        y[20:] *= 10**6
    for size in (0.0, 1.0, 1e2, 1e4, 1e8, 1e15):
        raw = (size * torch.randn(len(y), head.linear.out_features).sign()).to(kind).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=kind is torch.bfloat16):
            loss = head.loss(raw, y)
        loss.sum().backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite().all()
        assert raw.grad is not None
        assert raw.grad.isfinite().all()
        assert head.point(raw.detach()).isfinite().all()


@pytest.mark.parametrize("name", HEADS)
def test_a_constant_target_is_learned_without_harm(name):
    spec = HEADS[name]
    y = np.repeat(truths(spec)[:1], 50, 0)
    head = spec.build(4, (3,) if spec == PEN else ())
    head.fit(y)
    loss = head.loss(torch.zeros(50, head.linear.out_features), torch.from_numpy(y).float())
    assert loss.isfinite().all()
    assert (loss.abs() < 10).all()
    if tells_distribution(head) and name not in ("counts", "lopsided quantiles"):
        np.testing.assert_allclose(head.point(torch.zeros(head.linear.out_features))[:2], y[0, :2], rtol=1e-3)


@pytest.mark.parametrize("name", ["gaussian", "student", "mixture", "pen", "quantiles"])
def test_the_distribution_function_is_the_integral_of_the_density_and_quantiles_its_inverse(name):
    head, raw, y = head_of(HEADS[name])
    raw, y = raw[:3], y[:3]
    edges = head.quantiles(raw, [1e-7, *np.linspace(0.005, 0.995, 100)])[:, :2]
    if name == "quantiles":
        edges = torch.cat((edges, head.parameters_of(raw)["quantiles"]), -1)
    # Up to the truth, or all up to the last quantile where that is less.
    edges = torch.cat((torch.minimum(edges, y[:, :2, None]), y[:, :2, None]), -1).sort(-1).values
    x, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(12))
    middle, half = (edges[..., 1:] + edges[..., :-1]) / 2, edges.diff(dim=-1) / 2
    places = (middle[..., None] + half[..., None] * x).flatten(2)
    rest = y[:, None, 2:].expand(3, places.shape[-1], -1)
    density = head.log_prob(raw[:, None].expand(-1, places.shape[-1], -1), torch.cat((places.mT, rest), -1)).exp()
    area = (density[..., :2].mT.unflatten(-1, (-1, 12)) * weights).sum(-1) * half
    close(head.cdf(raw, y)[:, :2], 1e-7 + area.sum(-1), 1e-6)
    levels = (0.001, 0.1, 0.5, 0.77, 0.999)
    for level, found in zip(levels, head.quantiles(raw, levels).unbind(-1), strict=True):
        close(head.cdf(raw, found)[:, :2], torch.full_like(found[:, :2], level))


def test_counts_are_distributed_as_scipy_says():
    head, raw, y = head_of(HEADS["counts"])
    size, mean = 1 / head.parameters_of(raw)["dispersion"].numpy(), head.point(raw).numpy()
    law = stats.nbinom(size, size / (size + mean))
    close(head.log_prob(raw, y), stats.nbinom.logpmf(y.numpy(), size, size / (size + mean)))
    close(head.cdf(raw, y), law.cdf(y.numpy()), 1e-9)
    close(head.below(raw, y), law.cdf(y.numpy() - 1), 1e-9)
    assert head.below(raw, torch.zeros_like(y)).max() == 0
    levels = (0.01, 0.3, 0.5, 0.9, 0.999)
    close(head.quantiles(raw, levels), np.stack([law.ppf(level) for level in levels], -1))


def test_large_counts_keep_their_precision():
    head = Counts().build(4)
    head.fit(np.array([[5e4], [7e4]]))
    for size in (0.0, -30.0):
        raw = torch.tensor([[0.0, size]])
        n = 1 / float(head.double().parameters_of(raw.double())["dispersion"])
        mean = float(head.point(raw.double()))
        y = torch.tensor([[60100.0]])
        expected = stats.nbinom.logpmf(60100, n, n / (n + mean))
        assert float(head.float().log_prob(raw, y)) == pytest.approx(expected, rel=1e-4)


def test_students_t_agrees_with_scipy_to_its_extremes():
    rng = np.random.default_rng(0)
    t, freedom = rng.standard_cauchy(500) * 3, 2 + 10 ** rng.uniform(-3, 6, 500)
    close(student_cdf(torch.tensor(t), torch.tensor(freedom)), stats.t.cdf(t, freedom), 1e-9)
    head, raw, _ = head_of(HEADS["student"])
    more = head.parameters_of(raw)
    law = stats.t(more["freedom"].numpy(), head.point(raw).numpy(), more["scale"].numpy())
    levels = (1e-5, 0.2, 0.5, 0.9999)
    close(head.quantiles(raw, levels), np.stack([law.ppf(level) for level in levels], -1))
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert incomplete_beta(torch.ones_like(x), torch.ones_like(x), x).tolist() == [0, 1]


@pytest.mark.parametrize("name", SURE)
def test_the_ranked_probability_score_is_that_of_its_definition(name):
    """Mean distance of draws from the truth, less half that of draws from each other: here by the whole of them."""
    head, raw, y = head_of(HEADS[name])
    raw, y = raw[:6], y[:6]
    levels = ((np.arange(2000) + 0.5) / 2000).tolist()
    drawn = head.quantiles(raw, levels)
    near = (drawn - y[..., None]).abs().mean(-1)
    order = 2 * (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000 - 1
    expected = near - (drawn * order).mean(-1)
    np.testing.assert_allclose(head.crps(raw, y), expected, rtol=5e-3, atol=1e-4)


def test_the_score_of_counts_is_the_sum_over_all_of_them():
    head, raw, y = head_of(HEADS["counts"])
    size, mean = (1 / head.parameters_of(raw)["dispersion"])[..., None].numpy(), head.point(raw)[..., None].numpy()
    raw, y, size, mean, k = raw[:9], y[:9], size[:9], mean[:9], np.arange(6000)
    steps = stats.nbinom(size, size / (size + mean)).cdf(k) - (k >= y[..., None].numpy())
    np.testing.assert_allclose(head.crps(raw, y), (steps**2).sum(-1), rtol=1e-6)


@pytest.mark.parametrize("name", SURE)
def test_draws_are_distributed_as_it_says(name):
    head, raw, _ = head_of(HEADS[name])
    many = raw[:1].expand(4000, -1)
    drawn = head.sample(many, torch.Generator().manual_seed(0))
    assert drawn.shape == (4000, len(head.targets))
    assert torch.equal(drawn, head.sample(many, torch.Generator().manual_seed(0)))
    below, upto = (f(many, drawn).numpy() for f in (head.below, head.cdf))
    spread = below + np.random.default_rng(0).random(below.shape) * (upto - below)
    for number in range(len(head.targets)):
        assert stats.kstest(spread[:, number], "uniform").pvalue > 1e-3


def test_a_pens_two_numbers_are_drawn_together():
    head, raw, _ = head_of(PEN)
    count, plain = head.components, head.plain
    raw = raw[:1].clone()
    raw[:, :count] = torch.tensor([9.0, 0.0, 0.0])  # As good as one component,
    raw[:, count * (1 + 2 * plain)] = 1.0  # correlated by tanh(1).
    drawn = head.sample(raw.expand(5000, -1), torch.Generator().manual_seed(1))
    assert np.corrcoef(drawn[:, :2].T)[0, 1] == pytest.approx(np.tanh(1.0), abs=0.03)
    assert drawn[:, 2].unique().tolist() == [0, 1]
    assert drawn[:, 2].mean().item() == pytest.approx(head.point(raw)[0, 2].item(), abs=0.03)


def test_outputs_of_zero_say_what_the_training_data_were():
    for name in ("gaussian", "quantiles", "mixture"):
        head, raw, y = head_of(HEADS[name])
        close(head.point(raw[:1] * 0)[0], y.mean(0))
        close(head.quantiles(raw[:1] * 0, (0.8413447460685429,))[0, :, 0], y.mean(0) + y.std(0, correction=0))
    head, raw, y = head_of(HEADS["counts"])
    close(head.point(raw[:1] * 0)[0], y.mean(0))


@pytest.mark.parametrize("name", SURE)
def test_of_many_targets_each_has_its_place(name):
    """Shapes with any batch, none at all, and a vector beside a number."""
    spec = replace(HEADS[name], targets=("v", "w")) if name not in ("full mixture", "pen") else HEADS[name]
    sizes = {"full mixture": (1, 1), "pen": (3,)}.get(name, (2, 1))
    head = spec.build(4, sizes)
    assert tells_numbers(head)
    assert tells_distribution(head)
    total = sum(sizes)
    assert len(head.targets) == total
    for shape in ((), (5,), (2, 3)):
        raw, y = head(torch.randn(*shape, 4)), torch.ones(*shape, total)
        assert head.loss(raw, y).shape == shape
        assert head.log_likelihood(raw, y).shape == shape
        for found in (head.point(raw), head.sample(raw), head.cdf(raw, y), head.crps(raw, y), head.log_prob(raw, y)):
            assert found.shape == (*shape, total)
        assert head.quantiles(raw, (0.1, 0.9)).shape == (*shape, total, 2)


def test_weights_part_the_loss_among_targets():
    for spec in (Gaussian, StudentT, Quantiles, Counts):
        alone = [spec((name,)).build(4) for name in TWO]
        both = spec(TWO, weights=(3.0, 1.0)).build(4)
        raw, y = torch.randn(7, both.linear.out_features), torch.ones(7, 2)
        parts = raw.unflatten(-1, (-1, 2)).unbind(-1)
        each = [head.loss(part, y[:, :1]) for head, part in zip(alone, parts, strict=True)]
        close(both.loss(raw, y), 0.75 * each[0] + 0.25 * each[1])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Quantiles(levels=(0.5,)).build(3), "give two levels or more"),
        (lambda: Quantiles(levels=(0.9, 0.1)).build(3), "each above the one before; not 0.9 0.1"),
        (lambda: Quantiles(levels=(0.1, 1.0)).build(3), "levels lie between 0 and 1, 1.0"),
        (lambda: Gaussian(TWO, weights=(1.0,)).build(3), "Gaussian: 1 weights for 2 targets; give one a target"),
        (lambda: MixtureDensity(covariance="full").build(3), "for two numbers, not 1; use diagonal"),
        (lambda: MixtureDensity(end=True).build(3), "no number beside the end"),
        (lambda: MixtureDensity(components=0), "components must be at least 1"),
        (lambda: PEN.build(3, (3,)).fit(np.array([[0.0, 1.0, 2.0]])), r"pen\[2\] is 2, but MixtureDensity"),
        (lambda: Counts().build(3).fit(np.array([[1.0], [-1.0]])), "y is -1; Counts learns whole numbers from 0"),
        (lambda: Counts().build(3).fit(np.array([[0.5]])), "y is 0.5; Counts learns whole numbers"),
        (lambda: MultiLabel(TWO).build(3).fit(np.array([[1.0, 3.0]])), "b is 3; MultiLabel learns 0"),
        (lambda: MultiLabel(TWO, names=("x",)).build(3), "1 names for 2 classes"),
        (lambda: MultiLabel(TWO, names=("x", "x")).build(3), "two are the same"),
        (lambda: MultiLabel(TWO, weights=(1.0,)).build(3), "1 weights for 2 classes"),
        (lambda: Classification(classes=3, names=("x",)).build(3), "1 names for 3 classes; give one a class"),
        (lambda: Classification(classes=2, weights=(1.0, -1.0)).build(3), "finite numbers from 0"),
        (lambda: Classification(classes=3, weights=(1.0,)).build(3), "1 weights for 3 classes; give one a class"),
        (lambda: Gaussian().build(3).quantiles(torch.zeros(2), (0.5, 1.5)), "between 0 and 1, 1.5"),
        (lambda: Network(Identity(), GRU(3), Gaussian(), feedback=True).build((2,)), "numbers themselves, not Gauss"),
    ],
)
def test_what_no_head_can_be_or_learn_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_a_record_with_such_a_target_is_named():
    recipe = replace(small("echo"), head=Counts())
    with pytest.raises(UserError, match=r"record 'echo_0000': y is .*; Counts learns whole numbers from 0"):
        built(recipe)


def test_class_weights_are_those_of_torch_and_balanced_ones_of_scikit_learn():
    y = np.random.default_rng(0).choice(4, 200, p=(0.6, 0.3, 0.1, 0.0))
    raw, truth = torch.randn(200, 4), torch.from_numpy(y[:, None]).float()
    balanced = Classification(classes=4, weights="balanced").build(3)
    balanced.fit(y[:, None])
    expected = torch.tensor(compute_class_weight("balanced", classes=np.arange(3), y=y), dtype=torch.float32)
    close(balanced.class_weights(), torch.cat((expected, torch.ones(1))))
    counted = balanced.class_weights()
    assert counted is not None
    assert counted[y].mean().item() == pytest.approx(1)
    given = Classification(classes=4, smoothing=0.1, weights=(1.0, 2.0, 0.5, 0.0)).build(3)
    for head in (balanced, given):
        close(
            head.loss(raw, truth),
            F.cross_entropy(
                raw, truth.long()[:, 0], head.class_weights(), reduction="none", label_smoothing=head.smoothing
            ),
        )
    assert Classification(classes=4).build(3).class_weights() is None
    close(given.probabilities(raw), raw.softmax(-1))


def test_a_yes_that_is_rare_counts_as_much_as_all_noes():
    y = (np.random.default_rng(0).random((300, 2)) < (0.1, 0.5)).astype(float)
    head = MultiLabel(TWO, weights="balanced").build(3)
    head.fit(y)
    close(head.yes_weights(), torch.from_numpy((y == 0).sum(0) / (y == 1).sum(0)).float())
    weights = torch.where(torch.from_numpy(y) == 1, head.yes_weights(), 1.0)
    raw = torch.randn(300, 2)
    plain = F.binary_cross_entropy_with_logits(raw, torch.from_numpy(y).float(), weights.float(), reduction="none")
    close(head.loss(raw, torch.from_numpy(y).float()), plain.mean(-1))
    assert set(head.sample(raw).unique().tolist()) == {0, 1}
    assert MultiLabel(("signs",), names=("cough", "fever")).build(3, (2,)).targets == ("cough", "fever")
    constant = MultiLabel(TWO, weights="balanced").build(3)
    constant.fit(np.ones((5, 2)))
    assert constant.yes_weights().tolist() == [1, 1]


def test_a_class_is_told_by_its_name():
    head = Classification(classes=3, names=("left", "straight", "right")).build(3)
    assert head.names() == ["left", "straight", "right"]
    assert head.said({"label": 2.0}) == {"label": "right"}
    assert Classification(classes=3).build(3).names() is None
    assert NextSymbol(symbols="ab").build(3).names() is not None


@pytest.mark.parametrize("spec", [*HEADS.values(), Classification(weights="balanced"), Classification(weights=(1.0,))])
def test_specs_go_to_json_and_back(spec):
    assert from_json(to_json(spec)) == spec


def network(spec, flavour: Flavour = "many-to-many"):
    torch.manual_seed(0)
    sizes = (3,) if spec == PEN else ()
    model = Network(Identity(), GRU(6), spec, flavour).build((4,), sizes)
    model.head.fit(truths(spec))
    return model.eval()


@pytest.mark.parametrize("name", ["gaussian", "student", "quantiles", "lopsided quantiles"])
def test_a_calibrated_band_holds_its_share_and_the_estimate_stays(name, monkeypatch):
    head, raw, _ = head_of(HEADS[name])
    raw = raw.expand(40, *raw.shape).flatten(0, 1)
    before, bands = head.point(raw), head.quantiles(raw, (0.1, 0.9))
    y = before + torch.randn(before.shape, dtype=torch.float64) * torch.tensor([5.0, 0.01], dtype=torch.float64)
    monkeypatch.setattr(distributions, "FEW", 0.0)
    head.calibrate(head.reach(raw, y, (0.1, 0.9)), 0.8)
    close(head.point(raw), before)
    low, high = head.quantiles(raw, (0.1, 0.9)).unbind(-1)
    held = ((low <= y + 1e-9) & (y <= high + 1e-9)).double().mean(0)
    # Split conformal: the rank ceil((n + 1) 0.8) of n.
    close(held, torch.full((2,), np.ceil((len(y) + 1) * 0.8) / len(y), dtype=torch.float64))
    assert head.stretch.max() > 1 > head.stretch.min() > 0
    np.testing.assert_allclose(high - low, head.stretch * (bands[..., 1] - bands[..., 0]), rtol=1e-6)
    close(head.cdf(raw, high), torch.full_like(high, 0.9))
    assert head.float().quantiles(raw, (0.1, 0.9)).dtype == torch.float64
    few = head.stretch.clone()
    head.calibrate(torch.ones(3, 2), 0.8)  # The fourth of three: no band that is known would do.
    close(head.stretch, few)


def test_weights_from_before_bands_were_calibrated_still_load():
    head = Gaussian(TWO).build(4)
    old = {name: value for name, value in head.state_dict().items() if name != "stretch"}
    head.stretch.fill_(3)
    head.load_state_dict(old)
    close(head.stretch, torch.ones(2))


@pytest.mark.parametrize("name", HEADS)
def test_a_model_with_such_a_head_streams_steps_and_is_exported(name):
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    model = network(HEADS[name])
    if calibrates(model.head):
        model.head.stretch.copy_(torch.tensor([0.5, 3.0]))
    x = torch.randn(1, 30, 4)
    with torch.no_grad():
        whole, _ = model.run(x, model.initial())
    state = None
    for t in range(30):
        said, state = model.step(x[0, t].numpy(), state)
        np.testing.assert_allclose(list(said.values()), model.head.point(whole)[0, t], rtol=1e-3, atol=1e-4)
    made = step_graph(model)
    names = [output.name for output in made.graph.output]
    assert names[0] == "prediction"
    assert set(model.head.parameters_of(whole)) <= set(names)
    for batch in (1, 3):
        raws = iter(np.random.default_rng(0).normal(size=(100, batch, 4)).astype(np.float32))
        assert disagreement(made.SerializeToString(), model, raws) <= 1e-4


def test_the_exported_step_is_refused_where_a_subclass_says_something_else():
    class Doubled(GaussianHead):
        def point(self, raw):
            return 2 * super().point(raw)

    model = network(Gaussian(TWO))
    model.head = Doubled("Doubled", 6, 2, TWO)
    with pytest.raises(UserError, match="`point` is its own"):
        step_graph(model)


@pytest.mark.parametrize("name", ["gaussian", "pen", "labels"])
def test_one_answer_a_record_is_learned_from_its_last_step(name):
    spec = HEADS[name]
    model = network(spec, "many-to-one")
    y = torch.from_numpy(truths(spec)[:3]).float()
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    batch = Batch(torch.randn(3, 4, 4), y, mask, torch.ones(3, dtype=torch.bool))
    raw, _ = model(batch, model.initial(3))
    total, weight = model.loss(batch, raw)
    close(total, model.head.loss(raw[range(3), [2, 3, 0]], y).sum(), 1e-5)
    assert weight == 3


def test_what_is_less_than_a_float_apart_still_has_a_place():
    """Quantiles that float32 can't tell apart."""
    head = Quantiles().build(3)
    raw = torch.full((1, 7), -50.0)
    raw[:, 0] = 3e7
    y = torch.tensor([[3e7]])
    assert head.log_prob(raw, y).isfinite().all()
    assert 0 <= head.cdf(raw, y).item() <= 1
    assert head.crps(raw, y).item() >= 0
    assert sqrt(head.loss(raw, y).item()) < 1


@pytest.mark.parametrize(("head", "leaps"), [(Gaussian(), False), (Regression(("y",)), True)])
def test_a_likelihood_near_zero_is_no_sign_that_a_loss_leapt(head, leaps, tmp_path):
    made = trainer(replace(small("echo"), head=head), tmp_path)
    made.at.step, made.at.first, made.at.smooth = 10**6, 1.4, 0.01
    if leaps:
        with pytest.raises(_Exploded, match="leapt"):
            made._check(3.0, 1.0)
    else:
        made._check(3.0, 1.0)
    with pytest.raises(_Exploded, match="leapt"):
        made._check(30.0, 1.0)

import numpy as np
import pytest
import torch

from steersman.data.batches import Batch
from steersman.errors import UserError
from steersman.nn.cores import GRU, RNN, Bidirectional
from steersman.nn.glimpses import Glimpse, Sensor, glimpse_model, reinforce
from steersman.nn.heads import Classification, Regression


def by_hand(picture: np.ndarray, place: np.ndarray, size: int, scales: int) -> np.ndarray:
    """A glimpse, pixel by pixel."""
    found = []
    for scale in range(scales):
        times, side = 2**scale, size * 2**scale
        first = [round((place[i] + 1) / 2 * picture.shape[i] - side / 2) for i in (0, 1)]
        for row in range(size):
            for column in range(size):
                total = 0.0
                for i in range(times):
                    for j in range(times):
                        at = first[0] + row * times + i, first[1] + column * times + j
                        total += picture[at] if all(0 <= a < n for a, n in zip(at, picture.shape, strict=True)) else 0
                found.append(total / times**2)
    return np.array(found)


@pytest.mark.parametrize(("size", "scales"), [(4, 1), (3, 3), (1, 2)])
def test_a_glimpse_is_what_stands_around_its_place(size, scales):
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (5, 9, 13)).astype(np.uint8))
    places = torch.tensor([[0.0, 0.0], [-1.0, 1.0], [0.31, -0.77], [1.4, 0.2], [-3.0, 0.0]])
    seen = Sensor(size, scales)(pictures, places)
    expected = [
        by_hand(p.numpy().astype(float), q.numpy(), size, scales) for p, q in zip(pictures, places, strict=True)
    ]
    np.testing.assert_allclose(seen.numpy(), np.stack(expected), rtol=1e-6)
    # Several places of each at once are the same.
    several = Sensor(size, scales)(pictures.unsqueeze(1).expand(-1, 2, -1, -1), places.unsqueeze(1).expand(-1, 2, -1))
    torch.testing.assert_close(several[:, 1], seen)


def test_reinforce_is_in_the_mean_the_gradient_by_enumeration():
    """Two choices in a row, of three, with a table of what each pair wins: all nine are gone through."""
    torch.manual_seed(0)
    first, second = torch.randn(3, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    wins, guess = torch.rand(3, 3), torch.tensor([0.4, 0.7])
    chance = first.softmax(0).unsqueeze(1) * second.softmax(1)
    (chance * wins).sum().backward()
    exact = [first.grad.clone(), second.grad.clone()]
    first.grad = second.grad = None
    logs = torch.stack((first.log_softmax(0).unsqueeze(1).expand(3, 3), second.log_softmax(1)), -1)
    counts = torch.ones(3, 3, 2, dtype=torch.bool)
    won = wins.unsqueeze(-1).expand(3, 3, 2)
    total = torch.zeros(())
    for i in range(3):
        for j in range(3):  # Each pair by how often it is drawn.
            total = total + chance[i, j].detach() * reinforce(guess, logs[i, j], won[i, j], counts[i, j])
    total.backward()
    torch.testing.assert_close(-first.grad, exact[0])
    torch.testing.assert_close(-second.grad, exact[1])


def test_a_baseline_lowers_the_variance_and_learns_its_mean():
    torch.manual_seed(0)
    mean = torch.zeros(4096, requires_grad=True)
    drawn = torch.randn(4096)
    won = 0.8 + 0.1 * drawn
    logs = -0.5 * (drawn - mean).square()
    variances = []
    for guess in (torch.zeros(4096), torch.full((4096,), 0.8, requires_grad=True)):
        mean.grad = None
        reinforce(guess, logs, won, torch.ones(4096, dtype=torch.bool)).backward(retain_graph=True)
        torch.testing.assert_close(mean.grad.mean(), torch.tensor(-0.1), atol=0.05, rtol=0)
        variances.append(mean.grad.var().item())
    assert variances[1] < 0.1 * variances[0]
    torch.testing.assert_close(guess.grad, 2 * (0.8 - won))


def small_model(flavour="many-to-one", **options):
    torch.manual_seed(0)
    spec = Glimpse(Sensor(3, 2), hidden=8, place=4, features=12, **options)
    return glimpse_model(spec, RNN(10), Classification(classes=3), flavour, False, (9, 11), 1.0)


def test_steps_at_drawn_places_are_those_that_are_taken_one_by_one():
    model = small_model()
    x = torch.randint(0, 256, (4, 5, 9, 11), dtype=torch.uint8)
    batch = Batch(x, torch.zeros(4, 1), torch.ones(4, 5), torch.ones(4, dtype=torch.bool))
    model.train()
    torch.manual_seed(3)
    raw, _ = model(batch, model.initial(4))
    torch.manual_seed(3)
    places, core = model.places(x, model.initial(4), draw=True), model.core.initial(4)
    for t in range(5):
        y, core = model.core.step(model.encoder.at(x[:, t], places[:, t]), core)
        torch.testing.assert_close(raw[:, t, :3], model.head(y))
        off = (places[:, t + 1] - model.next_place(y)) / 0.1
        torch.testing.assert_close(raw[:, t, 4], -0.5 * off.square().sum(1))


def test_what_is_won_later_counts_for_a_place_and_what_was_won_before_does_not():
    model = small_model("many-to-many").train()
    y = torch.tensor([[[0.0], [1.0], [2.0], [0.0]]])
    mask = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    batch = Batch(torch.zeros(1, 4, 9, 11), y, mask, torch.ones(1, dtype=torch.bool))
    said = torch.full((1, 4, 3), -9.0)
    said[0, 1, 1] = 9.0  # Right at step 1, wrong at step 3.
    said[0, 3, 2] = 9.0
    raw = torch.cat((said, torch.zeros(1, 4, 2)), -1).requires_grad_()
    model.loss(batch, raw)[0].backward()
    # The place that is chosen at step 0 wins what step 1 does; those at 1 and 2 nothing; that at 3 does not count.
    torch.testing.assert_close(raw.grad[0, :, 4], torch.tensor([-1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(raw.grad[0, :, 3], torch.tensor([-2.0, 0.0, 0.0, 0.0]))


def test_what_it_can_not_take_is_refused():
    with pytest.raises(UserError, match=r"grey picture .* found steps of shape \(9, 11, 3\)"):
        Glimpse().build((9, 11, 3))
    for core, head in ((GRU(4), Regression(targets=("x",))), (Bidirectional(GRU(4)), Classification(classes=3))):
        with pytest.raises(UserError, match="where to look is learned by"):
            glimpse_model(Glimpse(), core, head, "many-to-one", False, (9, 11), 1.0)


def test_it_tells_the_part_that_it_looks_at():
    part = Glimpse(Sensor(4, 2)).build((12, 20)).looks_at((torch.tensor([[0.0, -1.0]]),))
    found = np.zeros((12, 20), np.float32)
    found[2:10, :4] += 0.5
    found[4:8, :2] += 0.5
    np.testing.assert_array_equal(part, found)

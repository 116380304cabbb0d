import numpy as np
import pytest
import torch

from steersman.data.batches import Batch
from steersman.errors import UserError
from steersman.nn.cores import GRU, Bidirectional
from steersman.nn.drawing import Canvas, Sketch, draw_model, filters


def by_hand(parameters: np.ndarray, grid: int, height: int, width: int):
    """Equations 19 to 26 of Gregor et al. 2015, places counted from 1."""
    gx, gy, log_variance, log_stride, _ = parameters
    stride = (max(height, width) - 1) / (grid - 1) * np.exp(log_stride)
    found = []
    for centre, size in ((gy, height), (gx, width)):
        middle, bank = (size + 1) / 2 * (centre + 1), np.zeros((grid, size))
        for i in range(1, grid + 1):
            mean = middle + (i - grid / 2 - 0.5) * stride
            for a in range(1, size + 1):
                bank[i - 1, a - 1] = np.exp(-((a - mean) ** 2) / (2 * np.exp(log_variance)))
        found.append(bank / bank.sum(1, keepdims=True))
    return found


def test_filters_are_the_gaussians_of_the_paper():
    parameters = torch.tensor([[0.1, -0.2, 0.5, -0.4, 0.3], [-0.5, 0.4, 1.5, -1.0, -0.7]], dtype=torch.float64)
    rows, columns, intensity = filters(parameters, 4, 7, 9)
    for i in range(2):
        expected = by_hand(parameters[i].numpy(), 4, 7, 9)
        np.testing.assert_allclose(rows[i].numpy(), expected[0], atol=1e-9)
        np.testing.assert_allclose(columns[i].numpy(), expected[1], atol=1e-9)
    torch.testing.assert_close(intensity[:, 0], parameters[:, 4].exp())


def small_model(**options):
    torch.manual_seed(0)
    return draw_model(Sketch(**{"read": 3, "write": 2, "latent": 2} | options), GRU(6), Canvas(), (5, 7)).double()


def test_reading_and_writing_have_the_gradient_of_finite_differences():
    model = small_model()
    picture, wrong = torch.rand(2, 2, 5, 7, dtype=torch.float64)
    parameters = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: model.encoder.see(picture, wrong, p), parameters)
    said = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.written, said)


def test_reading_is_a_product_with_both_banks():
    model = small_model()
    picture, wrong = torch.rand(2, 1, 5, 7, dtype=torch.float64)
    parameters = torch.randn(1, 5, dtype=torch.float64)
    rows, columns, intensity = (found[0].numpy() for found in filters(parameters, 3, 5, 7))
    seen = model.encoder.see(picture, wrong, parameters)[0].numpy()
    expected = [intensity * rows @ p[0].numpy() @ columns.T for p in (picture, wrong)]
    # Row by row the picture's stands beside that of what is wrong.
    np.testing.assert_allclose(seen.reshape(3, 2, 3).transpose(1, 0, 2), expected)


def test_the_divergence_is_that_of_two_normals_and_the_pixels_are_of_the_last_step():
    model = small_model().float()
    x = torch.randint(0, 2, (3, 4, 5, 7), dtype=torch.uint8) * 255
    batch = Batch(x, torch.zeros(3, 0), torch.ones(3, 4), torch.ones(3, dtype=torch.bool))
    model.eval()
    raw, _ = model(batch, model.initial(3))
    canvas = torch.distributions.Bernoulli(logits=raw[:, -1, :35])
    pixels = -canvas.log_prob(x[:, -1].flatten(1) / 255.0).sum(1)
    found = model.nats(raw, x, torch.full((3,), 4))
    torch.testing.assert_close(found[:, 0], pixels)
    seen = model.encoder.see(x[:, 0] / 255.0, x[:, 0] / 255.0 - 0.5, model.reads(torch.zeros(3, 6)))
    mean, log_deviation = model.code(
        model.reader.step(torch.cat((seen, torch.zeros(3, 6)), 1), model.reader.initial(3))[0]
    ).chunk(2, 1)
    normal = torch.distributions.Normal(mean, log_deviation.exp())
    divergence = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(raw[:, 0, -1], divergence)
    assert model.loss(batch, raw)[0].item() == pytest.approx(found.sum().item())


def test_codes_are_drawn_while_training_and_by_a_generator():
    model = small_model().float()
    x = torch.zeros(3, 4, 5, 7, dtype=torch.uint8)
    batch = Batch(x, torch.zeros(3, 0), torch.ones(3, 4), torch.ones(3, dtype=torch.bool))
    model.train()
    torch.manual_seed(1)
    first = model(batch, model.initial(3))[0]
    assert not torch.equal(first, model(batch, model.initial(3))[0])
    torch.manual_seed(1)
    assert torch.equal(first, model(batch, model.initial(3))[0])
    a, b, c = (list(model.drawings(2, 3, torch.Generator().manual_seed(seed)))[-1] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.shape == (2, 5, 7)


def test_without_attention_whole_pictures_are_read_and_written():
    model = small_model(read=0, write=0).float()
    assert model.encoder.size == 70
    assert model.writes.out_features == 35
    x = torch.zeros(1, 2, 5, 7, dtype=torch.uint8)
    assert model.run(x, model.initial(1))[0].shape == (1, 2, 36)


def test_what_it_can_not_take_is_refused():
    with pytest.raises(UserError, match="takes a grey picture"):
        Sketch().build((5, 7, 3))
    with pytest.raises(UserError, match="drawn step by step"):
        draw_model(Sketch(), Bidirectional(GRU(4)), Canvas(), (5, 7))

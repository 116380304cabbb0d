"""Arrays whose numbers are made when asked for are arrays in all that is asked of them."""

import numpy as np
import pytest

from steersman.data import lazy
from steersman.data.lazy import Chain, Clock, Each, Letters, is_lazy
from steersman.data.splits import View

RNG = np.random.default_rng(0)
KINDS = RNG.integers(0, 3, 9001).astype(np.uint8)
TABLE = np.array([7, 400, 0x1F600], np.int32)
SIZES = np.array([1, 2, 4], np.uint8)
BEGINS = np.concatenate(([0], SIZES[KINDS].astype(np.int32).cumsum()[:-1])).astype(np.int32)


def doubled(values):
    return (2.0 * values).astype(np.float32)


ARRAYS = {
    "letters": (Letters(KINDS, TABLE), TABLE[KINDS]),
    "bytes": (Letters(KINDS), KINDS),
    "clock of bytes": (Clock(9001), np.arange(9001, dtype=np.int32)),
    "clock of characters": (Clock(9001, KINDS, SIZES), BEGINS),
    "stretch of a clock": (Clock(9001, KINDS, SIZES)[4000:-2][100:], BEGINS[4100:-2]),
    "each": (Each(View(Letters(KINDS, TABLE), 3, 8000), doubled), doubled(TABLE[KINDS][3:8000, None])),
    "chain": (Chain([Letters(KINDS[:10]), Letters(KINDS[10:11]), Letters(KINDS[11:])]), KINDS),
}
PLACES = np.array([5, 0, -1, 4100, 4095, 4096, -200])
INDEXES = [
    slice(None), slice(10, 20), slice(4090, 4100), slice(-30, None), slice(None, None, 7), slice(50, 20),
    slice(None, None, -1), 0, -1, 4097, np.int64(3), PLACES, PLACES[:0], (slice(5, 90),), (None, slice(5, 9)), ...,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(lazy, "PART", 4096)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_lazy_array_is_what_the_whole_one_is(name):
    made, whole = ARRAYS[name]
    assert (made.shape, made.dtype, made.ndim, len(made)) == (whole.shape, whole.dtype, whole.ndim, len(whole))
    for index in INDEXES:
        np.testing.assert_array_equal(made[index], whole[index], err_msg=str(index))
        assert np.asarray(made[index]).dtype == whole.dtype
    np.testing.assert_array_equal(made, whole)
    np.testing.assert_array_equal(made - made[0], whole - whole[0])
    np.testing.assert_array_equal(np.concatenate([made, made]), np.concatenate([whole, whole]))
    np.testing.assert_array_equal(np.diff(made, axis=0), np.diff(whole, axis=0))
    assert made.max() == whole.max()
    assert np.isfinite(made).all()
    with pytest.raises(IndexError):
        made[len(whole)]
    with pytest.raises(AttributeError):
        made.to_numpy()


def test_two_axes_are_cut_at_once():
    made, whole = ARRAYS["each"]
    np.testing.assert_array_equal(made[3:9, 0], whole[3:9, 0])
    assert made[4, 0] == whole[4, 0]
    np.testing.assert_array_equal(made[np.array([7, 2, 2]), 0], whole[np.array([7, 2, 2]), 0])
    np.testing.assert_array_equal(made[np.array([7, 2]), np.array([0, 0])], whole[np.array([7, 2]), np.array([0, 0])])
    np.testing.assert_array_equal(made[None, :5], whole[None, :5])


def test_a_stretch_of_a_stretch_is_lazy_and_a_whole_one_the_same():
    clock = Clock(100)
    assert clock[:] is clock
    assert isinstance(clock[3:9], Clock)
    assert is_lazy(View(View(Letters(KINDS), 0, 50), 3, 9))
    assert not is_lazy(View(KINDS, 0, 50))

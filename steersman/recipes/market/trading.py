"""What a direction that was foretold is worth: returns after costs, and how sure that is.

Pure functions of arrays."""

import numpy as np

COST = 5e-4
"""Cost of turning over the whole position once: 5 basis points."""
YEAR = 252
"""Trading days of a year."""


def after_costs(position: np.ndarray, returns: np.ndarray, cost: float = COST) -> np.ndarray:
    """Return of each day of a position (-1 to 1) that is taken at its beginning, less what the change cost."""
    return position * returns - cost * np.abs(np.diff(position, prepend=0.0))


def block_bootstrap(values: np.ndarray, block: int = 20, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean of values that follow each other, by the circular block bootstrap.

    Blocks of so many values in a row are drawn, the end going on at the beginning (Politis & Romano 1992).
    """
    rng = np.random.default_rng(seed)
    size = len(values)
    block = min(block, size)
    ends = np.concatenate(([0.0], np.cumsum(np.concatenate((values, values[:block])))))
    sums = ends[block:][:size] - ends[:size]
    means = sums[rng.integers(0, size, (draws, -(-size // block)))].mean(1) / block
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)

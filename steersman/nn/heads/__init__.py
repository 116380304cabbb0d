"""What turns a feature into a prediction, a file a family."""

from .classes import (
    Classification,
    ClassificationHead,
    MultiLabel,
    MultiLabelHead,
    NextSymbol,
    NextSymbolHead,
    tells_classes,
    tells_labels,
    tells_symbols,
)
from .contract import Head, HeadSpec, numbers
from .counts import Counts, CountsHead
from .distributions import (
    DistributionHead,
    Gaussian,
    GaussianHead,
    StretchedHead,
    StudentT,
    StudentTHead,
    calibrates,
    tells_distribution,
)
from .mixtures import MixtureDensity, MixtureDensityHead
from .numbers import NumbersHead, Regression, RegressionHead, tells_numbers
from .quantiles import Quantiles, QuantilesHead

__all__ = [
    "Classification",
    "ClassificationHead",
    "Counts",
    "CountsHead",
    "DistributionHead",
    "Gaussian",
    "GaussianHead",
    "Head",
    "HeadSpec",
    "MixtureDensity",
    "MixtureDensityHead",
    "MultiLabel",
    "MultiLabelHead",
    "NextSymbol",
    "NextSymbolHead",
    "NumbersHead",
    "Quantiles",
    "QuantilesHead",
    "Regression",
    "RegressionHead",
    "StretchedHead",
    "StudentT",
    "StudentTHead",
    "calibrates",
    "numbers",
    "tells_classes",
    "tells_distribution",
    "tells_labels",
    "tells_numbers",
    "tells_symbols",
]

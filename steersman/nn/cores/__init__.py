"""Recurrent cores, a file a family."""

from .composed import (
    Bidirectional,
    BidirectionalCore,
    Stack,
    StackCore,
    Window,
    WindowCore,
    Zoneout,
    ZoneoutCore,
    reverse,
)
from .continuous import CfC, CfCCore
from .contract import (
    Core,
    CoreSpec,
    Memoryless,
    MemorylessCore,
    NotFinite,
    State,
    detach,
    map_state,
    reset,
    state_tensors,
)
from .gated import GRU, LSTM, RNN, Cell, GRUCore, LSTMCore, RNNCore
from .linear import LRU, LRUCore, MinCore, MinGRU, MinGRUCore, MinLSTM, MinLSTMCore
from .torch_layers import from_torch, to_torch

__all__ = [
    "GRU",
    "LRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "BidirectionalCore",
    "Cell",
    "CfC",
    "CfCCore",
    "Core",
    "CoreSpec",
    "GRUCore",
    "LRUCore",
    "LSTMCore",
    "Memoryless",
    "MemorylessCore",
    "MinCore",
    "MinGRU",
    "MinGRUCore",
    "MinLSTM",
    "MinLSTMCore",
    "NotFinite",
    "RNNCore",
    "Stack",
    "StackCore",
    "State",
    "Window",
    "WindowCore",
    "Zoneout",
    "ZoneoutCore",
    "detach",
    "from_torch",
    "map_state",
    "reset",
    "reverse",
    "state_tensors",
    "to_torch",
]

"""Devices and processes that a training runs on."""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import get_node_local_rank

from ..errors import UserError


def pick_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one. UserError where the device is not to be had."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and dist.is_initialized():
        name = f"cuda:{get_node_local_rank()}"
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}; use auto, cpu or cuda") from None


def join_processes() -> tuple[int, int]:
    """Rank and number of processes under torchrun, else (0, 1)."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(dist.destroy_process_group)  # Its threads must not outlive the interpreter.
    return dist.get_rank(), dist.get_world_size()


@contextmanager
def first_alone(rank: int, ranks: int) -> Iterator[None]:
    """The first process records and prepares what is missing; the others then find it done."""
    if rank > 0:
        dist.barrier()
    yield
    if rank == 0 and ranks > 1:
        dist.barrier()

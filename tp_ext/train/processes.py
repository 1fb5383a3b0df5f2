"""The processes of a run: which one this is, and what they tell each other."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from tp_ext.errors import CheckpointError
from tp_ext.train.exchanges import Exchanges


@dataclass(frozen=True)
class Processes:
    """This process among all of the run."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this one speaks and writes for all."""
        return self.rank == 0

    def total(self, *values: float) -> list[float]:
        """The sum of each value over all processes, in double precision."""
        from deepspeed import comm  # whose exchanges are counted as such

        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        comm.all_reduce(sums)
        return [float(value) for value in sums]

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        return self.total(float(flag))[0] > 0

    def gathered(self, value: Any) -> list[Any]:
        """The value of every process, in order of rank."""
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def agree(self, problem: str | None) -> None:
        """Raise a CheckpointError in all processes when any has a `problem`: the first that was told."""
        problems = [told for told in self.gathered(problem) if told]
        if problems:
            raise CheckpointError(problems[0])

    def wait(self) -> None:
        """Wait until all processes are here."""
        distributed.barrier()


def join() -> Processes:
    """Join the processes the launcher started (deepspeed, torchrun, Slurm's variables), or be the only one."""
    if "RANK" not in os.environ:
        port = free_port()
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                       "MASTER_PORT": str(port)}  # fmt: skip
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(local_rank)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes_here()))
    import deepspeed

    # what DeepSpeed calls in torch is for it to put right, not for the user to read at every step
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed would compile its shared-memory collectives for inference here, half a minute that training never uses
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", timeout=timedelta(minutes=30), verbose=False)
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    return Processes(distributed.get_rank(), distributed.get_world_size(), local_rank, device)


def processes_here() -> int:
    """How many of the run's processes are on this machine, by what torchrun or DeepSpeed's launcher says."""
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE"):
        if os.environ.get(name):
            return max(1, int(os.environ[name]))
    return 1


def free_port() -> int:
    """A port that nothing on this machine listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def watched(processes: Processes) -> Exchanges:
    """What counts the time of the exchanges between processes from now on."""
    from deepspeed.comm import comm

    return Exchanges(processes.device, comm.cdb)


def world_size() -> int:
    """How many processes the run has, by what its launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def store() -> torch.distributed.distributed_c10d.Store:
    """Where processes can leave values for each other without waiting, for instance when one has failed."""
    return torch.distributed.distributed_c10d._get_default_store()


def leave() -> None:
    """Close the connections to the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def hang_up() -> None:
    """Shut every network connection of this process, so that whatever others wait for from it ends with an error.

    For a process that is about to end. To destroy the groups is not enough: DeepSpeed holds on to them.
    """
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as held:
                listens = held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if held.family in (socket.AF_INET, socket.AF_INET6) and not listens:
                    held.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed in the meantime, or connected to nobody
            continue

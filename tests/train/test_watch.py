"""Where the time of a step is said to have gone."""

import pytest
import torch
from torch.cuda import is_available

from tp_ext.train import exchanges
from tp_ext.train.exchanges import Exchanges
from tp_ext.train.watch import StopWatch


class Clock:
    """A clock that goes as far as it is told."""

    now = 0.0

    def perf_counter(self):
        return self.now


class Work:
    """An exchange that goes on beside what is computed; its end is 2 seconds off."""

    def __init__(self, clock):
        self._clock = clock

    def wait(self):
        self._clock.now += 2

    def is_completed(self):
        return False


class Backend:
    """Exchanges that take 3 seconds, or go on beside."""

    def __init__(self, clock):
        self._clock = clock

    def reduce(self, is_beside=False):
        if is_beside:
            return Work(self._clock)
        self._clock.now += 3
        return None

    def all_reduce(self):
        return self.reduce()  # one inside the other is counted once


def test_what_holds_a_process_up_is_taken_out_of_the_part_it_held_up(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(exchanges, "time", clock)
    backend, device = Backend(clock), torch.device("cpu")
    known = Exchanges(device, backend)
    backend.reduce()  # before the step
    watch = StopWatch(device, known)
    clock.now += 1
    backend.all_reduce()
    watch.lap("forward")
    work = backend.reduce(is_beside=True)
    clock.now += 5
    assert not work.is_completed()
    work.wait()
    watch.lap("backward")
    backend.reduce()
    watch.lap("save")
    clock.now += 1
    watch.lap("optimizer")
    assert {part: seconds for part, seconds in watch.seconds().items() if seconds} == {
        "forward": 1, "backward": 5, "communication": 3 + 2, "save": 3, "optimizer": 1,
    }  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not is_available(), reason="events in the queue of a GPU need one: torch finds no CUDA here")
def test_on_a_gpu_the_main_queue_is_what_is_watched():
    device = torch.device("cuda", 0)
    matrix = torch.randn(4096, 4096, device=device)

    class OnGpu:
        def reduce(self):
            for _ in range(20):
                matrix @ matrix

    backend = OnGpu()
    known = Exchanges(device, backend)
    watch = StopWatch(device, known)
    backend.reduce()
    with torch.cuda.stream(torch.cuda.Stream(device)):
        backend.reduce()  # beside
    watch.lap("backward")
    spent = watch.seconds()
    assert spent["communication"] > 0
    assert len(watch._laps[0][3]) == 1

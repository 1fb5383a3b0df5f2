"""A process that has imported what training needs, and runs scripts in copies of itself, which therefore start at once.

    python tests/warm.py SOCKET

`Warm` is the other end of it. A copy goes on as the interpreter does with a script that it is given: its own arguments,
environment and output, and the end that the script takes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SECONDS = 280
"""For one command."""
_LONGEST = 1 << 17
_GRACE = 2
"""Seconds from the failure of one copy to SIGTERM for the others."""


class Warm:
    """Runs scripts in copies of a process that is started with the first one."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, words: Sequence[str], environments: Sequence[Mapping[str, str]], folder: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run a script with its arguments in `folder`, once beside the other in each of the `environments`.

        The return code is that of the first copy that failed, the others are sent SIGTERM soon after. Raises
        subprocess.TimeoutExpired.
        """
        channel = self._started(environments[0])
        asked = {"words": list(words), "environments": [dict(each) for each in environments], "folder": str(folder)}
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            socket.send_fds(channel, [json.dumps(asked).encode()], [stdout.fileno(), stderr.fileno()])
            try:
                code = int(channel.recv(_LONGEST))
            except TimeoutError:
                self.close()
                raise subprocess.TimeoutExpired(list(words), SECONDS) from None
            stdout.seek(0)
            stderr.seek(0)
            told = [each.read().decode(errors="replace") for each in (stdout, stderr)]
            return subprocess.CompletedProcess(list(words), code, *told)

    def _started(self, environment: Mapping[str, str]) -> socket.socket:
        if self._channel is None:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._channel.settimeout(SECONDS)
            with theirs:
                line = [sys.executable, __file__, str(theirs.fileno())]
                self._process = subprocess.Popen(line, env=environment, pass_fds=[theirs.fileno()], start_new_session=True)
        return self._channel

    def close(self) -> None:
        """End the process, and what still runs in copies of it."""
        if self._channel is not None and self._process is not None:
            self._channel.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._channel = None


def serve(channel: socket.socket) -> dict[str, Any] | None:
    """Run what is asked for until nothing is; in a copy, what it is to be."""
    while True:
        message, files, *_ = socket.recv_fds(channel, _LONGEST, 2)
        if not message:
            return None
        asked = json.loads(message)
        running = []
        for environment in asked["environments"]:
            child = os.fork()
            if not child:
                channel.close()
                for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), *files]):
                    os.dup2(file, number)
                    os.close(file)
                return {"words": asked["words"], "folder": asked["folder"], "environment": environment}
            running.append(child)
        for file in files:
            os.close(file)
        channel.send(str(_wait(running)).encode())


def _wait(running: list[int]) -> int:
    """Wait for copies to end; the code of the first that failed, or 0."""
    first, until = 0, float("inf")
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            running.remove(child)
            if not first:
                first = os.waitstatus_to_exitcode(status)
                until = time.monotonic() + _GRACE if first else until
        elif time.monotonic() > until:
            until = float("inf")
            for other in running:
                os.kill(other, signal.SIGTERM)
        else:
            time.sleep(0.005)
    return first


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    for name in ("torch._refs", "torch._inductor.compile_fx", "deepspeed.runtime.zero.utils", "tp_ext.train.loop",
                 "deepspeed.runtime.zero.muon.muon_optimizer"):  # fmt: skip
        importlib.import_module(name)
    job = serve(socket.socket(fileno=int(sys.argv[1])))
    if job:
        os.environ.clear()
        os.environ.update(job["environment"])
        os.chdir(job["folder"])
        sys.argv = job["words"]
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
        runpy.run_path(sys.argv[0], run_name="__main__")

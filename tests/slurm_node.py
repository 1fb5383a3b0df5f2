"""Slurm on one node; TP_EXT_SLURM names a folder with its Debian packages unpacked.

    apt-get download slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 libhwloc15 liblua5.1-0
    for package in *.deb; do dpkg -x $package $TP_EXT_SLURM; done
"""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import environment

SLURM = os.environ.get("TP_EXT_SLURM")
marks = [pytest.mark.slow, pytest.mark.skipif(not SLURM, reason="TP_EXT_SLURM is not set")]
SETTINGS = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmctldPort={first}
SlurmdPort={second}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/node.log
PluginDir={plugins}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def slurm(tmp_path):
    """The environment of a node that is its own controller."""
    root = Path(SLURM)
    libraries = root / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
    values = {"host": socket.gethostname().split(".")[0], "first": free_port(), "second": free_port(), "folder": tmp_path,
              "plugins": libraries / "slurm-wlm"}  # fmt: skip
    for name in ("state", "spool", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "slurm.conf").write_text(SETTINGS.format_map(values))
    path = f"{libraries}:{libraries / 'slurm-wlm'}"
    for name in ("sbatch", "srun", "sinfo", "scontrol", "squeue"):
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={path} exec {root / "usr" / "bin" / name} "$@"\n')
        command.chmod(0o755)
    paths = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    variables = {**environment(), "SLURM_CONF": str(tmp_path / "slurm.conf"), "PATH": paths}
    daemons = [["slurmctld-wlm", "-D"], ["slurmd-wlm", "-D", "-d", str(root / "usr" / "sbin" / "slurmstepd-wlm")]]
    running = []
    for name, *arguments in daemons:
        command = [root / "usr" / "sbin" / name, *arguments]
        running.append(subprocess.Popen(command, env={**variables, "LD_LIBRARY_PATH": path}, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL))  # fmt: skip
        time.sleep(2)
    until(lambda: "idle" in subprocess.run(["sinfo"], env=variables, capture_output=True, text=True).stdout)
    yield variables
    for daemon in reversed(running):
        daemon.terminate()
        daemon.wait()


def until(there, seconds=60):
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.5)

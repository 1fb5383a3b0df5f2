"""Two machines, that is two network namespaces joined by a cable that exists only here, train as one does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, environment, metrics, pretrain

NAMES, ADDRESSES = ("one", "two"), ("10.77.0.1", "10.77.0.2")
PORT = 29511
APART = f"""
set -e
mount -t tmpfs none /run
mkdir -p /run/netns
ip netns add one
ip netns add two
ip link add veth0 netns one type veth peer name veth0 netns two
for at in one/{ADDRESSES[0]} two/{ADDRESSES[1]}; do
    ip -n ${{at%/*}} addr add ${{at#*/}}/24 dev veth0
    ip -n ${{at%/*}} link set veth0 up
    ip -n ${{at%/*}} link set lo up
done
"""
ENTER = "nsenter --net=/run/netns/{name} unshare --uts --mount sh -c 'hostname {name}; {before} exec \"$@\"' sh"


def isolated(script, **more):
    """Run a shell script in a network and a file tree of its own; all of it is gone when it ends."""
    words = ["unshare", "--map-root-user", "--net", "--mount", "--uts", "sh", "-c", script]
    return subprocess.run(words, capture_output=True, text=True, timeout=200, check=False, **more)


def reason_to_skip():
    missing = [name for name in ("ip", "unshare", "nsenter") if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)}: not here; they are in iproute2 and util-linux"
    tried = isolated(APART + ENTER.format(name="two", before="") + " true")
    return tried.stderr and f"namespaces may not be made here: {tried.stderr.strip().splitlines()[-1]}"


@pytest.fixture(scope="module", autouse=True)
def _machines():
    if reason := reason_to_skip():
        pytest.skip(reason)


def launcher(kind, rank, folder):
    """The words that start pretrain.py on machine `rank` of two."""
    if kind == "deepspeed":
        (folder / "hostfile").write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
        given = f"deepspeed --hostfile {folder}/hostfile --no_ssh --node_rank {rank}"
        return f"{given} --master_addr {ADDRESSES[0]} --master_port {PORT}"
    if kind == "torchrun":
        given = f"torchrun --nnodes 2 --nproc-per-node 1 --node-rank {rank}"
        return f"{given} --master-addr {ADDRESSES[0]} --master-port {PORT}"
    given = f"env RANK={rank} WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR={ADDRESSES[0]} MASTER_PORT={PORT}"
    return f"{given} {sys.executable}"


def on_two(values, folder, kind, before=("", "")):
    """Run pretrain.py on both machines; what each wrote, and how it ended. `before` is done first on each."""
    (folder / "recipe.json").write_text(json.dumps(values))
    script = APART + "set +e\n"
    for rank, name in enumerate(NAMES):
        enter = ENTER.format(name=name, before=before[rank])
        script += (f"({enter} {launcher(kind, rank, folder)} pretrain.py --config {folder}/recipe.json "
                   f"> {folder}/{name}.txt 2>&1; echo $? > {folder}/{name}.code) &\n")  # fmt: skip
    done = isolated(script + "wait\n", env={**environment(), "GLOO_SOCKET_IFNAME": "veth0"}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return [((folder / f"{name}.txt").read_text(), int((folder / f"{name}.code").read_text())) for name in NAMES]


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """The folder of a run of two processes on one machine."""
    return tmp_path_factory.mktemp("beside")


@pytest.mark.parametrize("kind", ["deepspeed", "torchrun", pytest.param("slurm", marks=pytest.mark.slow)])
def test_two_machines_give_the_losses_of_two_processes_on_one(recipe, tmp_path, beside, kind):
    if not (beside / "out").exists():
        done = pretrain(recipe(train__output_model_path=str(beside / "out")), beside, processes=2)
        assert done.returncode == 0, done.stderr
    for text, code in on_two(recipe(), tmp_path, kind):
        assert code == 0, text
    for name in ("loss", "grad_norm", "text_loss"):
        assert metrics(tmp_path / "out", name) == metrics(beside / "out", name)
    assert (tmp_path / "out/model/model.safetensors").read_bytes() == (beside / "out/model/model.safetensors").read_bytes()
    assert not list((tmp_path / "out").glob(".seen_*"))


def test_an_output_folder_that_is_not_shared_is_refused(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    ends = on_two(recipe(), tmp_path, "torchrun", ("", f"mount -t tmpfs none {tmp_path}/out;"))
    assert "is not the same folder on two as for process 0" in ends[0][0]
    assert all(code for _, code in ends)
    assert not list((tmp_path / "out").iterdir())


def test_other_data_on_the_second_machine_are_refused(recipe, tmp_path, dataset, held_out):
    ends = on_two(recipe(), tmp_path, "torchrun", ("", f"mount --bind {Path(held_out)} {Path(dataset)};"))
    assert "process 1 on two has dataset_sha256" in ends[0][0]
    assert all(code for _, code in ends)
    assert not (tmp_path / "out").exists()

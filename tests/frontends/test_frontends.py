"""The programs people serve models with load what we export, and compute and write what our own model does."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import meta_reference
import pytest
import torch
from conftest import ROOT, make_texts
from models_on_disk import SHAPES, make_model, make_tokenizers

from tp_ext.checkpoint.convert import Conversion, convert
from tp_ext.checkpoint.source import Degree
from tp_ext.infer import load
from tp_ext.models import families

pytestmark = pytest.mark.frontends
PROMPTS = ["第一条 为了", "The module returns", "申请人  应当 a  b"]
NEW = 24
TOLERANCES = {"F32": 1e-4, "F16": 3e-2, "BF16": 2e-1, "Q8_0": 2e-1, "bloom": 3e-3}
"""Of llama.cpp's log-probabilities, absolute. Its gelu is a table in float16, so BLOOM is further off."""


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory, corpus):
    return make_tokenizers(tmp_path_factory.mktemp("tokenizers"), corpus)


@pytest.fixture(params=[*SHAPES, "demo"])
def model(request, tmp_path, tokenizers):
    """The folder of a model: a tiny random one of each shape, and the one that `make demo` left."""
    if request.param == "demo":
        demo = Path(os.environ.get("TP_EXT_DEMO", ROOT / "outputs")) / "llama_tiny_zh" / "model"
        if not demo.is_dir():
            pytest.skip("make demo has left no model (TP_EXT_DEMO names its outputs elsewhere)")
        return "demo", demo
    tokenizer = tokenizers["bloom" if "bloom" in request.param else "llama"]
    return request.param, make_model(tmp_path / "model", request.param, tokenizer)


def our_ids(ours, prompt):
    """Ids of a prompt with bos, and those that follow it by the likeliest token."""
    before = [] if ours.tokenizer.bos_id is None else [ours.tokenizer.bos_id]
    ids = before + ours.tokenizer.encode(prompt)
    found = list(ids)
    for _ in range(NEW):
        found.append(int(ours.logits(torch.tensor([found]))[0, -1].argmax()))
    return ids, found[len(ids) :]


def test_transformers(model, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shape, path = model
    convert(path, tmp_path / "hf", "huggingface", families)
    ours, theirs = load(path), AutoModelForCausalLM.from_pretrained(tmp_path / "hf", attn_implementation="eager").eval()
    for prompt in PROMPTS:
        ids, following = our_ids(ours, prompt)
        with torch.no_grad():
            found = theirs(torch.tensor([ids])).logits
            added = theirs.generate(torch.tensor([ids]), max_new_tokens=NEW, do_sample=False, eos_token_id=-1)
        expected = ours.logits(torch.tensor([ids]))
        assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
        assert added[0, len(ids) :].tolist() == following
    lines = [*make_texts(40, 9), "", " a", "  b", "a   b", "第 一  条"]
    fast = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert fast(lines, add_special_tokens=False).input_ids == ours.tokenizer.encode_batch(lines)
    if shape == "llama":
        slow = AutoTokenizer.from_pretrained(tmp_path / "hf", use_fast=False)
        assert slow(lines, add_special_tokens=False).input_ids == ours.tokenizer.encode_batch(lines)
        from transformers import pipeline

        written = pipeline("text-generation", model=str(tmp_path / "hf"))(
            PROMPTS[0], max_new_tokens=NEW, do_sample=False, return_full_text=False
        )
        assert written[0]["generated_text"] == ours.generate([PROMPTS[0]], max_new_tokens=NEW)[0]


class LlamaCpp:
    """llama.cpp's OpenAI-compatible server with one model."""

    def __init__(self, model):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_ctx, params.n_parallel, params.port, params.cpuparams.n_threads = 256, 1, 0, 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.warmup = False
        self._server = xllamacpp.Server(params)

    def ask(self, path, **values):
        request = urllib.request.Request(f"{self._server.listening_address}{path}", json.dumps(values).encode(),
                                         {"Content-Type": "application/json"})  # fmt: skip
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def following(self, ids, count):
        """The likeliest ids after `ids`."""
        answer = self.ask("/completion", prompt=ids, n_predict=count, temperature=0, top_k=1, repeat_penalty=1.0,
                          cache_prompt=False, ignore_eos=True, return_tokens=True)  # fmt: skip
        return answer["tokens"]

    def probabilities(self, ids, written, best=20):
        """The log-probabilities of the `best` likeliest ids after `ids`, before anything is chosen from them.

        They are told with text only: so the id `written`, which stands for some, is forced to be chosen.
        """
        answer = self.ask("/completion", prompt=ids, n_predict=1, n_probs=best, cache_prompt=False,
                          logit_bias=[[written, 1000.0]])  # fmt: skip
        return {each["id"]: each["logprob"] for each in answer["completion_probabilities"][0]["top_logprobs"]}


@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16", "q8_0"])
def test_llama_cpp(model, tmp_path, kind):
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    shape, path = model
    convert(path, tmp_path / "gguf", Conversion(to="gguf", dtype=kind), families)
    server, ours = LlamaCpp(tmp_path / "gguf" / "model.gguf"), load(path)
    lines = [*make_texts(20, 9), " a", "a   b", "第 一  条"]
    for line in lines:
        assert server.ask("/tokenize", content=line, add_special=False, parse_special=False)["tokens"] == (
            ours.tokenizer.encode(line)
        )
    tolerance = max(TOLERANCES[{"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}[kind]],
                    TOLERANCES["bloom"] if "bloom" in shape else 0)  # fmt: skip
    for prompt in PROMPTS:
        ids, following = our_ids(ours, prompt)
        probabilities = server.probabilities(ids, ours.tokenizer.encode("The")[-1])
        assert len(probabilities) == 20
        expected = ours.logits(torch.tensor([ids]))[0, -1].log_softmax(-1)
        for index, value in probabilities.items():
            assert abs(float(expected[index]) - value) <= tolerance, (index, value)
        if kind == "fp32":
            assert server.following(ids, NEW) == following
    written = server.ask("/v1/completions", prompt=PROMPTS[1], max_tokens=4, temperature=0)
    assert written["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("shape", ["llama", "groups", "theta"])
def test_metas_layout_by_its_description(tmp_path, tokenizers, shape, ranks):
    path = make_model(tmp_path / "model", shape, tokenizers["llama"])
    convert(path, tmp_path / "meta", Conversion(to="meta", degree=Degree(ranks)), families)
    ids = torch.randint(504, (30,), generator=torch.Generator().manual_seed(2))
    found, expected = meta_reference.logits(tmp_path / "meta", ids), load(path).logits(ids[None])[0]
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    params = json.loads((tmp_path / "meta" / "params.json").read_text())
    width = torch.load(tmp_path / "meta" / "consolidated.00.pth", weights_only=True)["layers.0.feed_forward.w1.weight"]
    size = int(2 * (4 * params["dim"]) / 3)  # as Meta's loader computes it
    size = int(params.get("ffn_dim_multiplier", 1) * size)
    assert params["multiple_of"] * -(-size // params["multiple_of"]) == len(width) * ranks


HOST = """
import argparse, json, sys, torch
sys.argv = ["generate_lm.py"]
folder, ids, weights, host = %r, %r, %r, %r
sys.path.insert(0, host + "/scripts")
from generate_lm import GenerateLm, infer_opts, load_hyperparam, load_model, str2tokenizer, tokenizer_opts
parser = argparse.ArgumentParser(); infer_opts(parser); tokenizer_opts(parser)
args = parser.parse_args(["--load_model_path", weights, "--test_path", "x", "--prediction_path", "x", "--config_path",
                          folder + "/config.json", "--spm_model_path", folder + "/tokenizer.model", "--tokenizer", "space"])
args.target, args.batch_size, args.seq_length = "lm", 1, len(ids)
args = load_hyperparam(args)
args.tokenizer = str2tokenizer["space"](args)
model = load_model(GenerateLm(args), args.load_model_path).eval()
with torch.no_grad():
    logits = model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
torch.save(logits, sys.stdout.buffer)
"""


@pytest.fixture
def host(tmp_path):
    """A checkout, and a folder to run it in: it opens models/special_tokens_map.json there, which must be LLaMA's."""
    pytest.importorskip("six")  # which its tokenizers need
    checkout = os.environ.get("TENCENTPRETRAIN")
    if not checkout:
        pytest.skip("TENCENTPRETRAIN does not point to a checkout")
    run_in = tmp_path / "run_in"
    (run_in / "models").mkdir(parents=True)
    known = Path(checkout) / "models" / "llama_special_tokens_map.json"
    (run_in / "models" / "special_tokens_map.json").write_bytes(known.read_bytes())
    return Path(checkout), run_in


def for_the_host(folder):
    """The host knows no encoder of ours and no vocabulary size in its JSON: it has `transformer` and a tokenizer."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values = {name: value for name, value in values.items() if name not in ("vocab_size", "rope_theta")}
    path.write_text(json.dumps({**values, "encoder": "transformer"}))


@pytest.mark.parametrize("shape", ["llama", "groups"])
def test_tencentpretrains_logits(tmp_path, tokenizers, host, shape):
    import io

    path = make_model(tmp_path / "model", shape, tokenizers["llama"], layernorm_eps=1e-6)
    convert(path, tmp_path / "tp", "tencentpretrain", families)
    for_the_host(tmp_path / "tp")
    ids = torch.randint(504, (30,), generator=torch.Generator().manual_seed(2)).tolist()
    code = HOST % (str(tmp_path / "tp"), ids, str(tmp_path / "tp" / "tencentpretrain_model.bin"), str(host[0]))
    done = subprocess.run([sys.executable, "-c", code], cwd=host[1], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found = torch.load(io.BytesIO(done.stdout[done.stdout.index(b"PK") :]), weights_only=True)
    expected = load(path).logits(torch.tensor([ids]))
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_tencentpretrains_own_generation(tmp_path, tokenizers, host):
    path = make_model(tmp_path / "model", "llama", tokenizers["llama"])
    convert(path, tmp_path / "tp", "tencentpretrain", families)
    for_the_host(tmp_path / "tp")
    (tmp_path / "prompt.txt").write_text(PROMPTS[1], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, host[0] / "scripts" / "generate_lm.py",
         "--load_model_path", tmp_path / "tp" / "tencentpretrain_model.bin",
         "--config_path", tmp_path / "tp" / "config.json", "--spm_model_path", tmp_path / "tp" / "tokenizer.model",
         "--tokenizer", "bert", "--test_path", tmp_path / "prompt.txt", "--prediction_path", tmp_path / "written.txt",
         "--seq_length", "40", "--top_k", "1"],
        cwd=host[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    written = (tmp_path / "written.txt").read_text(encoding="utf-8").split("\n", 1)[1]
    ours = load(path)
    begin = [ours.tokenizer.bos_id, *ours.tokenizer.encode(PROMPTS[1])]
    found = list(begin)
    while len(found) < 40:
        found.append(int(ours.logits(torch.tensor([found]))[0, -1].argmax()))
    assert written == ours.tokenizer.decode(found)

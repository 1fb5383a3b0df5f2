"""The rooms of the library: which may import which, what must not be imported at all, and habits held everywhere."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT, environment

ORDER = {
    "errors": 0, "settings": 1, "progress": 1, "workers": 1, "heap": 1, "output": 2, "config": 2, "registry": 3, "page": 3,
    "tokens": 4, "corpus": 5, "data": 6, "nn": 6, "clean": 7, "checkpoint": 7, "models": 8, "train": 9, "infer": 9,
    "study": 10, "extend": 10, "serve": 10,
}  # fmt: skip
"""A room imports from rooms with a lower number only, and from itself."""
FILES = sorted((ROOT / "tp_ext").rglob("*.py"))


def room_of(path):
    return path.relative_to(ROOT / "tp_ext").parts[0].removesuffix(".py")


def imports(path, guarded=False):
    """Modules of ours that a file imports; those for type checkers only when `guarded`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not guarded:
            skipped |= set(ast.walk(node))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tp_ext."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("tp_ext."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    room = room_of(path)
    if room == "__init__":
        assert not list(imports(path))
        return
    for other in imports(path):
        assert other == room or ORDER[other] < ORDER[room], f"{room} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_habits(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "the first line of a module says what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(node)
        assert not (isinstance(node, ast.ImportFrom) and node.names[0].name == "*")
    assert "strict=False" not in text
    assert "sys.path" not in text


@pytest.mark.parametrize("module", ["tp_ext", "tp_ext.clean.pipeline", "tp_ext.data.preprocess", "tp_ext.extend.transaction",
                                    "tp_ext.tokens.train", "tp_ext.train.recipe"])  # fmt: skip
def test_what_needs_no_torch_does_not_import_it(module):
    code = f"import sys, {module}; print([name for name in ('torch', 'deepspeed', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.name)
def test_every_script_has_a_help(script):
    done = subprocess.run([sys.executable, script, "--help"], env=environment(), capture_output=True, text=True, check=True)
    assert f"python scripts/{script.name}" in done.stdout

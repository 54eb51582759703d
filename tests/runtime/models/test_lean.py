"""Models are loaded without the compiler, and everything else can still be imported afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.runtime.helpers import MINILM

# In a process of its own: what this one has imported already cannot be left out any more.
_LOAD = """
import sys
from pathlib import Path
from embedding_runtime.engine.model import Truncation
from embedding_runtime.models.loader import LoadRequest, load_model

{before}
request = LoadRequest(sys.argv[1], cache=Path(sys.argv[2]), device="cpu", precision="float32")
model = load_model(request, lambda message: None)
items = model.prepare(["a text"], None, Truncation.NONE)
print(model.embed([item.payload for item in items])[0, :3].round(6).tolist())
print(sorted({{"torch._dynamo", "sympy", "triton", "scipy.optimize"}} & set(sys.modules)))
{after}
"""


def load(tmp_path: Path, *, before: str = "", after: str = "") -> tuple[list[str], str]:
    """The lines that a process says which loads MiniLM, and its log."""
    script = _LOAD.format(before=before, after=after)
    command = [sys.executable, "-W", "error::DeprecationWarning:embedding_runtime", "-c", script]
    done = subprocess.run([*command, str(MINILM), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines(), done.stderr


def test_a_model_is_loaded_without_what_only_compiling_and_training_need(tmp_path: Path) -> None:
    after = """
import torch
import torch.distributed
import transformers.utils
double = torch.compiler.disable(lambda x: 2 * x)
from torch._dynamo import disable
from torch.fx.experimental.symbolic_shapes import ShapeEnv
layer = torch.nn.Linear(4, 4)
print(double(3), disable.__module__, ShapeEnv.__module__)
from transformers.initialization import TORCH_INIT_FUNCTIONS
same = all(getattr(torch.nn.init, name) is function for name, function in TORCH_INIT_FUNCTIONS.items())
print(torch.distributed.is_available(), bool(layer.weight.std() > 0), same)
"""
    (_, imported, real, rest), _ = load(tmp_path, after=after)
    assert imported == "[]"
    assert real == "6 torch._dynamo.decorators torch.fx.experimental.symbolic_shapes"
    assert rest == "True True True"


def test_where_that_fails_everything_is_imported_and_the_vectors_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("from torch._dynamo.eval_frame import OptimizedModule")
    before = f"""
import logging
import embedding_runtime.models.lean as lean
logging.basicConfig()
sys.path.append({str(tmp_path)!r})
lean._COMMON = (*lean._COMMON, "needy")
"""
    (lean, imported), _ = load(tmp_path)
    assert imported == "[]"
    (whole, imported), log = load(tmp_path, before=before)
    assert "importing all of it" in log
    assert whole == lean
    assert "torch._dynamo" in imported

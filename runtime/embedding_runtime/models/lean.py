"""Importing and building transformers' models without what only compiling and training need.

Whoever imports one of transformers' models imports torch's compiler, with sympy and triton behind it, torch's
distributed tensors, and scipy for the losses of object detection: two seconds of processor time and 200 MB, for
decorators that say "do not compile this" in a program that compiles nothing. While `lean_imports` holds, what leads
there says that it is not installed, or stands aside; afterwards all of it can be imported as ever.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")
_log = logging.getLogger(__name__)
_MASKS = "transformers.masking_utils"
_INDEXING = "torch._dynamo._trace_wrapped_higher_order_op"
# What every model's module imports, directly or through others.
_COMMON = (_MASKS, "transformers.modeling_layers", "transformers.modeling_utils", "transformers.generation.utils")
# Packages that are not to be imported, with those of their modules that transformers asks for by name.
_ASIDE = ("torch._dynamo", _INDEXING, "torch.fx.experimental.symbolic_shapes")
# What fills new layers with random numbers. Drawn for tensors without memory, they take sympy; and the checkpoint's
# weights replace all of them (a weight that is missing is an error).
_INITIAL_VALUES = ("kaiming_uniform_", "normal_", "trunc_normal_", "uniform_", "xavier_uniform_")


class _Aside:
    """Stands for whatever a module that is set aside has.

    A type that nothing is an instance of; a decorator that leaves functions as they are; and of a condition on shapes,
    which are plain numbers here and never symbols, what it is.
    """

    def __new__(cls, given: Any = None, *_: Any, **__: Any) -> Any:
        return given if callable(given) or isinstance(given, bool) else _unchanged


def _as_it_is(tensor: Any, *_: Any, **__: Any) -> Any:
    return tensor


def _unchanged(function: Any) -> Any:
    return function


class _AsideModule(ModuleType):
    """A module in which every name is there, and does nothing."""

    __path__: list[str] = []  # noqa: RUF012 (a package's, never changed)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Aside


def import_lean() -> None:
    """Import what transformers' models have in common leanly; when that fails, as ever."""
    before = set(sys.modules)
    try:
        with lean_imports():
            for name in _COMMON:
                importlib.import_module(name)
    except Exception as error:
        _log.warning("transformers needs more than usual (%s: %s): importing all of it", type(error).__name__, error)
        for name in set(sys.modules) - before:
            if name.startswith("transformers."):
                del sys.modules[name]
        for name in _COMMON:
            importlib.import_module(name)


def leanly(work: Callable[[], T]) -> T:
    """The result of work that imports or builds a model, done leanly; where something is missing then, as ever."""
    try:
        with lean_imports():
            return work()
    except (ImportError, AttributeError) as error:
        _log.warning("a model needs more than usual (%s: %s): importing all of it", type(error).__name__, error)
        return work()


@contextmanager
def lean_imports() -> Iterator[None]:
    """Until the end of this, imports of transformers leave the compiler, distributed tensors and scipy out, and new
    layers have no initial values."""
    import torch
    import torch.distributed

    # It keeps the functions that give initial values as they are when it is imported.
    import transformers.initialization
    import transformers.utils

    aside = [name for name in _ASIDE if name not in sys.modules]
    for name in aside:
        sys.modules[name] = _AsideModule(name)
    replaced = [
        _replace(torch.distributed, "is_available", lambda: False),
        _replace(torch.compiler, "disable", _Aside),
        _replace(transformers.utils, "is_scipy_available", lambda: False),
        *(_replace(torch.nn.init, name, _as_it_is) for name in _INITIAL_VALUES),
    ]
    try:
        yield
    finally:
        for undo in replaced:
            undo()
        for name in aside:
            del sys.modules[name]
        for package, _, name in (module.rpartition(".") for module in aside):
            with suppress(KeyError, AttributeError):
                delattr(sys.modules[package], name)
        masks: Any = sys.modules.get(_MASKS)
        if masks is not None and masks.TransformGetItemToIndex is _Aside:
            # Masks that are functions of positions need it; no model here is known to have one.
            masks.TransformGetItemToIndex = _indexing


def _indexing() -> Any:
    return importlib.import_module(_INDEXING).TransformGetItemToIndex()


def _replace(module: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute; the result sets it back."""
    original = getattr(module, name)
    setattr(module, name, value)
    return lambda: setattr(module, name, original)

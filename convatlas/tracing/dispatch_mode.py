"""A mode that sees every operation of torch, without the second that torch spends on it by default."""

import sys
from typing import ClassVar, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The base class of modes whose `__torch_dispatch__` is called for every operation.

    The compiler of torch must not compile that method. By default torch therefore imports the compiler when
    the method is first called, 1.3 s in each process; this class waits until something else has imported it,
    as a network that calls `torch.compile` does.
    """

    _guarded: ClassVar[set[type]] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __enter__(self) -> Self:
        mode = type(self)
        if "torch._dynamo" in sys.modules and mode not in self._guarded:
            self._guarded.add(mode)
            mode.__torch_dispatch__ = torch.compiler.disable(mode.__torch_dispatch__)  # type: ignore[method-assign, no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

"""Fused group -> kernel: a loop nest, then the code of one backend."""

from torchy.codegen.errors import CompileError
from torchy.codegen.loops import LoopNest, lower

__all__ = ["CompileError", "LoopNest", "lower"]

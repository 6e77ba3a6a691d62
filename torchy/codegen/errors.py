"""What code generation raises."""


class CompileError(Exception):
    """A kernel form cannot be compiled: by design (an op without a formula) or because a tool failed."""

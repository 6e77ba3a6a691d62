"""What can be set for a session."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torchy.ir.ops import Numerics
from torchy.record.policy import deferrable

Compile = Literal["auto", "always", "never"]
SWITCH = "TORCHY"  # of the environment
OFF = f"{SWITCH}=off in the environment: all runs as in eager"
Mode = Literal["record", "pass_through", "carry"]

# numerics, compile, skip_dead and nan: what of a session's settings changes what its flushes run
VARIANTS = tuple(
    itertools.product(get_args(Numerics), get_args(Compile), (True, False), (False, True))
)
VARIANT_NUMBERS = {variant: number for number, variant in enumerate(VARIANTS)}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a session.

    Parameters
    ----------
    numerics
        "exact": bit-identical to eager. "fast": an error against float64 of at most twice eager's.
    compile
        "auto": a trace met for the first time is interpreted unless compiling it pays at once, and
        compiled in the background. "always": compiled before it is run. "never": interpreted.
    max_ops
        A trace is flushed when it has as many ops.
    max_bytes
        Memory, in bytes, by which a trace may exceed what eager would have held, before it is
        flushed (5 % are always allowed).
    skip_dead
        False: ops run all the same whose results the program has dropped unread, as in eager. For
        measuring: a stopwatch around them would show nothing otherwise.
    memory_pool
        Have torch take the memory of large tensors, from the first session on and eager's too, from
        blocks that are kept for the next ones when tensors drop them; :func:`torchy.release_memory`
        gives them back. False: leave torch's allocator alone, unless another session has not.
    cache_dir
        Where the walker, kernels, and what is known of this machine are kept for the processes to come; default
        ``$XDG_CACHE_HOME/torchy`` or ``~/.cache/torchy``.
    keep
        Memory, in bytes or as text ("256MiB"), for what flushes are given: values can be asked for then, see
        :meth:`torchy.Session.value`. 0: nothing is kept. It is one for all sessions of the process: what the last one that
        keeps anything says.
    nan
        Find where the first NaN or infinity is born: see :attr:`torchy.Session.first_nan`.
    compare
        Run each flush once more by eager, on what it was given: see :attr:`torchy.Session.comparison`.
    receipt
        A :class:`torchy.Receipt` to note flushes in, or to compare them with.
    never
        Ops that are run at once though they could be deferred, by the names that a trace's listing shows ("add",
        "_softmax"), their in-place forms and those on lists included: for whoever suspects one. Names, or a text of them
        with commas or blanks between.
    mode
        For tests: "pass_through" runs every op through, "carry" makes every result carry the
        backend bit besides.
    """

    numerics: Numerics = "exact"
    compile: Compile = "auto"
    max_ops: int = 1024
    max_bytes: int = 16 << 20
    skip_dead: bool = True
    memory_pool: bool = True
    cache_dir: str | os.PathLike[str] | None = None
    keep: int = 0
    nan: bool = False
    compare: bool = False
    receipt: Any = None
    never: tuple[str, ...] = ()
    mode: Mode = "record"

    @property
    def may_sleep(self) -> bool:
        """Whether recording may stop where it does not pay."""
        return self.compile == "auto" and self.mode == "record" and not self.watches

    @property
    def watches(self) -> bool:
        """Whether flushes are looked at."""
        return self.nan or self.watches_each

    @property
    def watches_each(self) -> bool:
        """Whether each of them is, before it runs and after."""
        return bool(self.keep or self.compare or self.receipt is not None)

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """Return settings, checked.

        Raises
        ------
        TypeError
            If a name is not a setting.
        ValueError
            If a value is not allowed.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                raise TypeError(
                    f"{name!r} is not a setting of Torchy; settings: {', '.join(names)}"
                )
        if "keep" in given:
            given["keep"] = bytes_of(given["keep"])
        if "never" in given:
            given["never"] = names_of(given["never"])
        settings = cls(**given)
        settings._check("numerics", get_args(Numerics))
        settings._check("compile", get_args(Compile))
        settings._check("mode", get_args(Mode))
        for name, least in (("max_ops", 1), ("max_bytes", 0)):
            value = getattr(settings, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")
        for name in ("skip_dead", "memory_pool", "nan", "compare"):
            if not isinstance(value := getattr(settings, name), bool):
                raise ValueError(f"{name} must be True or False, not {value!r}")
        if settings.max_ops > 1_000_000:
            raise ValueError(f"max_ops must be at most 1000000, not {settings.max_ops}")
        if settings.receipt is not None and not callable(getattr(settings.receipt, "note", None)):
            raise ValueError(f"receipt must be a torchy.Receipt or None, not {settings.receipt!r}")
        if settings.cache_dir is not None and not isinstance(settings.cache_dir, str | os.PathLike):
            raise ValueError(f"cache_dir must be a path or None, not {settings.cache_dir!r}")
        return settings

    def _check(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            raise ValueError(
                f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}"
            )


@functools.cache
def switched_off() -> bool:
    """Tell whether the environment says ``TORCHY=off``: regions record nothing then, and all is as in eager.

    That is looked up when it is asked first, and stays so as long as the process lives.

    Raises
    ------
    ValueError
        If it says something else than on or off.
    """
    said = os.environ.get(SWITCH, "on")
    if said.strip().lower() in ("off", "0", "false", "no"):
        return True
    if said.strip().lower() in ("on", "1", "true", "yes", ""):
        return False
    raise ValueError(f"{SWITCH} in the environment must be on or off, not {said!r}")


def _plain(name: Any) -> Any:
    """Return an op's name without namespace, overload, and what marks its in-place form and that on lists."""
    if not isinstance(name, str):
        return name
    plain = name.rpartition("::")[2].partition(".")[0].removeprefix("_foreach_")
    return plain if plain.endswith("__") else plain.removesuffix("_")


def names_of(ops: object) -> tuple[str, ...]:
    """Read names of ops that can be deferred: a text with commas or blanks between them, or several names.

    Raises
    ------
    ValueError
        If one is none, with those that are like it.
    """
    given = re.split(r"[\s,]+", ops.strip(" ,")) if isinstance(ops, str) else ops
    if not isinstance(given, Iterable):
        raise ValueError(f"never must be names of ops, not {ops!r}")
    names = tuple(_plain(name) for name in given if name != "")
    known = deferrable()
    for name in names:
        if not isinstance(name, str) or name not in known:
            like = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
            hint = f" like it: {', '.join(like)};" if like else ""
            raise ValueError(
                f"never: {name!r} is no op that Torchy defers;{hint} names are those that a trace's listing shows"
            )
    return names


def bytes_of(size: object) -> int:
    """Read a size in bytes: a number, or a text like ``256MiB``, ``1.5GB`` or ``64M``.

    Raises
    ------
    ValueError
        If it is none.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    if isinstance(size, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)(B?)\s*", size.upper())
        if found is not None and (found[2] or not found[3]):
            number, prefix, binary, of_bytes = found.groups()
            base = 1000 if of_bytes and not binary else 1024
            return int(float(number) * base ** (" KMGT".index(prefix) if prefix else 0))
    raise ValueError(f"a size is a number of bytes, or a text like '256MiB', not {size!r}")

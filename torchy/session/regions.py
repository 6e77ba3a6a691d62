"""Regions: which parts of a program are recorded, and under which settings.

A thread's regions lie in each other, or overlap, where generators or tasks begin and end them by turns. They share one
session, under the settings of the innermost. An interrupt may come in anywhere: what begins and ends a region can be
done again, and then does what is missing. So may a signal handler that has a region of its own: while a session is being
closed, that has another session.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torchy.settings import Settings

S = TypeVar("S")
Hosted = TypeVar("Hosted", contravariant=True)


class Host(Protocol[Hosted]):
    """What has the sessions."""

    def open(self, session: Hosted) -> None:
        """Record this thread's ops into a new session from now on."""

    def close(self, session: Hosted) -> None:
        """Let go of a session whose last region has ended."""

    def use(self, session: Hosted, settings: Settings) -> None:
        """Record this thread's ops into a session from now on, under these settings."""


@dataclass(eq=False, slots=True)
class Region(Generic[S]):
    """One region; ``owner`` is what began it and will end it."""

    owner: object
    session: S
    settings: Settings


class Here(threading.local, Generic[S]):
    """What the calling thread has of its own: its regions, innermost last."""

    def __init__(self) -> None:
        self.regions: list[Region[S]] = []

    @property
    def session(self) -> S | None:
        """The session of the calling thread."""
        regions = self.regions
        return regions[-1].session if regions else None


class Regions(Generic[S]):
    """The regions of each thread.

    Parameters
    ----------
    host
        What has the sessions.
    compute
        ``compute(session, reason)`` flushes.
    here
        Where each thread's regions are kept.
    """

    def __init__(self, host: Host[S], compute: Callable[[S, str], None], here: Here[S]) -> None:
        self._host = host
        self._compute = compute
        self.here = here

    def last(self, owner: object) -> Region[S] | None:
        """Return the region that an owner began last on this thread, if it has not ended."""
        for region in reversed(self.here.regions):
            if region.owner is owner:
                return region
        return None

    def join(self, region: Region[S], given: dict[str, Any]) -> None:
        """Begin a region within this thread's innermost: what it is given itself goes before that one's settings."""
        outer = self.here.regions[-1].settings
        region.settings = dataclasses.replace(outer, **given)
        self.here.regions.append(region)
        if region.settings != outer:
            self._compute(region.session, "settings changed")
        self._host.use(region.session, region.settings)

    def begin(self, region: Region[S]) -> None:
        """Begin the first region of a session on this thread."""
        self.here.regions.append(region)  # first, and taken off last
        self._host.open(region.session)

    def leave(self, region: Region[S], reason: str) -> None:
        """Flush if a region is the last of its session, or had settings of its own; end it."""
        try:
            others = self._others(region)
            if not others:
                self._compute(region.session, reason)
            elif others[-1].settings != self._settings(region.session):
                self._compute(region.session, "settings changed")
            self.end(region)
        except BaseException:
            self.end(region)
            raise

    def undo(self, owner: object, before: Region[S] | None) -> None:
        """End what an owner has begun since a region, if an interrupt has left it so; flushes nothing."""
        begun = self.last(owner)
        if begun is not None and begun is not before:
            self.end(begun)

    def end(self, region: Region[S]) -> None:
        """End a region, unless it has ended; flushes nothing."""
        here = self.here.regions
        if region not in here:
            return
        if others := self._others(region):
            self._host.use(region.session, others[-1].settings)
        else:
            self._host.close(region.session)
        here.remove(region)

    def _others(self, region: Region[S]) -> list[Region[S]]:
        """Return the other regions of a region's session."""
        here = self.here.regions
        if len(here) == 1:  # mostly
            return []
        return [each for each in here if each is not region and each.session is region.session]

    def _settings(self, session: S) -> Settings:
        """Return what holds for a session now: the settings of its innermost region."""
        return [each for each in self.here.regions if each.session is session][-1].settings

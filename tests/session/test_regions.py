import threading

import pytest

from torchy.session.regions import Here, Region, Regions
from torchy.settings import Settings

OUTER, INNER = Settings(), Settings(max_ops=7)


class Host:
    """Writes down what it is told."""

    def __init__(self):
        self.told = []
        self.fails = False
        self.regions = Regions(self, self.compute, Here())

    def open(self, session):
        self.told.append("open")

    def close(self, session):
        self.told.append("close")

    def use(self, session, settings):
        self.told.append(settings.max_ops)

    def compute(self, session, reason):
        self.told.append(reason)
        if self.fails:
            raise KeyboardInterrupt


def begun(host, owner="outer"):
    region = Region(owner, "session", OUTER)
    host.regions.begin(region)
    return region


def joined(host, owner="inner", **given):
    region = Region(owner, "session", INNER)
    host.regions.join(region, given)
    return region


def test_the_last_region_of_a_session_flushes_and_closes_it():
    host = Host()
    region = begun(host)
    assert host.regions.here.session == "session"
    host.regions.leave(region, "end")
    assert host.told == ["open", "end", "close"]
    assert host.regions.here.session is None


def test_a_region_of_the_same_settings_flushes_nothing():
    host = Host()
    begun(host)
    host.told.clear()
    host.regions.leave(joined(host), "end")
    assert host.told == [OUTER.max_ops, OUTER.max_ops]


def test_settings_of_its_own_apply_until_a_region_ends():
    host = Host()
    begun(host)
    host.told.clear()
    host.regions.leave(joined(host, max_ops=7), "end")
    assert host.told == ["settings changed", 7, "settings changed", OUTER.max_ops]


def test_a_region_of_another_session_within_one_that_is_being_closed_closes_its_own():
    host = Host()
    closing = begun(host)
    inner = Region("inner", "another session", INNER)
    host.regions.begin(inner)
    host.told.clear()
    host.regions.leave(inner, "end")
    assert host.told == ["end", "close"]
    host.regions.leave(closing, "its end")
    assert host.told[2:] == ["its end", "close"] and not host.regions.here.regions


def test_a_region_ends_though_its_flush_is_interrupted():
    host = Host()
    region = begun(host)
    host.fails = True
    with pytest.raises(KeyboardInterrupt):
        host.regions.leave(region, "end")
    assert host.told[-1] == "close"
    assert not host.regions.here.regions


def test_the_region_that_an_owner_began_last():
    host = Host()
    owner = object()
    begun(host, owner)
    second = joined(host, owner)
    joined(host)
    assert host.regions.last(owner) is second
    assert host.regions.last("nobody") is None


def test_other_threads_have_other_regions():
    host, seen = Host(), []
    begun(host)
    thread = threading.Thread(target=lambda: seen.append(host.regions.here.session))
    thread.start()
    thread.join()
    assert seen == [None]

"""How long is waited, for what: nobody at the address, at first and later, and faults of a service."""

import http.client
import socket
import urllib.error
import urllib.request

import pytest

from servegraph.deploy_version.faults import Patience, Unavailable, Unreachable, no_answer
from servegraph.storage.unreachable import REACH_S, giving_up, is_unreachable


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def refused(port: int) -> Exception:
    with pytest.raises(urllib.error.URLError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5)
    return caught.value


def waited(patience: Patience, clock: Clock, fault: Exception) -> float:
    start_s = clock.now_s
    while True:
        try:
            patience.pause(fault)
        except type(fault):
            return clock.now_s - start_s


def test_an_address_without_anybody_is_given_up_soon_and_said_at_once(caplog):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        fault = no_answer("models.get of m", refused(unused.getsockname()[1]))
    assert (type(fault), fault.code) == (Unreachable, "UNREACHABLE")
    assert "the service cannot be reached" in fault.message and "Connection refused" in fault.message
    clock = Clock()
    assert 4 < waited(Patience(sleep=clock.sleep, clock=clock), clock, fault) <= REACH_S
    assert [record.message for record in caplog.records] == [f"{fault.message} Trying again for up to {REACH_S:g} s."]


def test_an_outage_is_waited_out_for_longer():
    clock = Clock()
    patience = Patience(sleep=clock.sleep, clock=clock)
    patience.relax()
    assert waited(patience, clock, Unreachable("gone")) > 200
    assert waited(Patience(sleep=clock.sleep, clock=clock), clock, Unavailable("503")) > 200


def test_what_was_reached_is_told_apart():
    assert is_unreachable(socket.gaierror(-2, "Name or service not known"))
    cut = http.client.RemoteDisconnected("closed without response")
    assert not is_unreachable(cut)
    assert type(no_answer("x", cut)) is Unavailable


def test_a_retry_gives_up_on_what_cannot_be_reached():
    clock = Clock()
    goes_on = giving_up(lambda error: isinstance(error, OSError), "Storage", clock)
    assert goes_on(ConnectionRefusedError()) and goes_on(ConnectionResetError()) and not goes_on(ValueError())
    clock.sleep(REACH_S)
    assert not goes_on(ConnectionRefusedError()) and goes_on(ConnectionResetError())


def test_what_is_read_between_two_tries_is_no_progress_of_theirs():
    clock, waits, tries = Clock(), [], []
    patience = Patience(100.0, 1.0, 20.0, lambda wait_s: (waits.append(wait_s), clock.sleep(wait_s)), clock)

    def create():
        tries.append(patience.again(lambda: "nothing"))
        assert len(tries) < 15
        raise Unavailable("503")

    with pytest.raises(Unavailable):
        patience.again(create)
    assert clock.now_s <= 1100 and max(waits) > 10

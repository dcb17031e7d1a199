"""Names of ingresses: looked up off the loop, again at each dial, one link an address.

Each test has a network namespace with a name server of its own.  Ingresses listen on
different addresses of its loopback and on one port, as the addresses of one name have it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Iterator, Sequence

import pytest

from harness import http
from harness.check import assert_answer
from harness.deadline import wait_until
from harness.dns import Dns, resolving_prefix
from harness.netns import Namespace, Namespaces
from harness.server import serve
from harness.stack import Ingress, Shim, Stack, timed

NAME = "gateway.test"
PORT = 7700  # of a namespace in which nobody else is
ENDPOINT = f"tcp://{NAME}:{PORT}"
UNRESOLVED = "the ingress's name does not resolve"
# How often the shim looks, where a test waits for that.
OFTEN = ("--resolve-interval", "200ms")


class Net:
    """A namespace, its name server, and what runs in it."""

    def __init__(self, stack: Stack, namespace: Namespace) -> None:
        self.stack = stack
        self.namespace = namespace
        self.dns = Dns(namespace)
        with namespace.inside():
            self.server = stack.server()

    def ingress(self, address: str, *extra: str) -> Ingress:
        return self.stack.start_ingress(*extra, shims=f"tcp://{address}:{PORT}",
                                        prefix=self.namespace.prefix)

    def shim(self, *extra: str, endpoint: str | Sequence[str] = ENDPOINT, hosts: str = "",
             wait: bool = True) -> Shim:
        prefix = resolving_prefix(self.namespace, self.stack.folder / "etc", hosts)
        return self.stack.start_shim(endpoint, "--log-level", "debug", *extra,
                                     server=self.server, prefix=prefix, wait=wait)

    def ask(self, ingress: Ingress) -> None:
        """The shim serves this ingress."""
        with self.namespace.inside():
            client = ingress.client()
        assert assert_answer(client.ask()).body == b"hello"


@pytest.fixture
def net(namespaces: Namespaces, stack: Stack) -> Iterator[Net]:
    net = Net(stack, namespaces.add())
    try:
        yield net
    finally:
        net.dns.close()


def wait_registered(shim: Shim, address: str, after: int = 0) -> None:
    shim.wait_log(rf'msg="?registered"? .*address="?tcp://{re.escape(address)}:{PORT}', after=after)


def count(text: str, log: str) -> int:
    return log.count(text)


def test_a_name_of_the_hosts_file(net: Net) -> None:
    ingress = net.ingress("127.0.0.2")
    net.shim(hosts=f"127.0.0.2 {NAME}\n")
    net.ask(ingress)


def test_a_name_of_the_name_server(net: Net) -> None:
    net.dns.set(NAME, "127.0.0.2")
    ingress = net.ingress("127.0.0.2")
    net.shim()
    net.ask(ingress)


def test_each_address_of_a_name_has_a_link(net: Net) -> None:
    addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    net.dns.set(NAME, *addresses)
    ingresses = [net.ingress(address) for address in addresses]
    shim = net.shim()
    for address, ingress in zip(addresses, ingresses):
        wait_registered(shim, address)
        net.ask(ingress)


def test_one_of_several_that_is_not_there_holds_up_nobody(net: Net) -> None:
    net.dns.set(NAME, "127.0.0.2", "127.0.0.3")
    there = net.ingress("127.0.0.3")
    shim = net.shim()
    wait_registered(shim, "127.0.0.3")
    net.ask(there)
    late = net.ingress("127.0.0.2")
    wait_registered(shim, "127.0.0.2")
    net.ask(late)


def test_a_new_address_gets_a_link(net: Net) -> None:
    net.dns.set(NAME, "127.0.0.2")
    first, second = net.ingress("127.0.0.2"), net.ingress("127.0.0.3")
    shim = net.shim(*OFTEN)
    net.dns.set(NAME, "127.0.0.2", "127.0.0.3")
    wait_registered(shim, "127.0.0.3")
    net.ask(first)
    net.ask(second)
    assert "link lost" not in shim.log


def test_an_address_that_vanished_is_served_until_its_link_goes(net: Net) -> None:
    net.dns.set(NAME, "127.0.0.2", "127.0.0.3")
    leaving, staying = net.ingress("127.0.0.2"), net.ingress("127.0.0.3")
    shim = net.shim(*OFTEN)
    for address in ("127.0.0.2", "127.0.0.3"):
        wait_registered(shim, address)
    net.dns.set(NAME, "127.0.0.3")
    net.dns.wait_questions(NAME, net.dns.questions(NAME) + 2)
    net.ask(leaving)
    leaving.kill()
    shim.wait_log("an ingress's address is gone.*127.0.0.2")
    # back on the same address, and nobody dials it any more
    net.ingress("127.0.0.2")
    net.dns.wait_questions(NAME, net.dns.questions(NAME) + 5)
    assert count("msg=registered", shim.log) == 2
    net.ask(staying)


def test_an_ingress_that_moved_is_found_at_its_new_address(net: Net) -> None:
    """Without a look in between: the dial itself asks."""
    net.dns.set(NAME, "127.0.0.2")
    ingress = net.ingress("127.0.0.2")
    shim = net.shim("--resolve-interval", "0")
    assert net.dns.questions(NAME) == 1
    ingress.kill()
    net.dns.set(NAME, "127.0.0.3")
    moved = net.ingress("127.0.0.3")
    wait_registered(shim, "127.0.0.3")
    net.ask(moved)


def test_a_name_that_does_not_resolve_is_said_once_and_tried_again(net: Net) -> None:
    ingress = net.ingress("127.0.0.2")
    shim = net.shim(wait=False)
    net.dns.wait_questions(NAME, 5)
    assert count(UNRESOLVED, shim.log) == 1
    assert NAME in shim.wait_log(f".*{UNRESOLVED}.*")[0]
    net.dns.set(NAME, "127.0.0.2")
    shim.wait_registered()
    net.ask(ingress)
    assert count(UNRESOLVED, shim.log) == 1


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_name_that_does_not_resolve_is_said_once_a_minute(net: Net) -> None:
    shim = net.shim(wait=False)
    first = shim.wait_log(UNRESOLVED)
    start = time.monotonic()
    shim.wait_log(UNRESOLVED, 80, after=first.end())
    assert 55 <= time.monotonic() - start <= 75
    assert count(UNRESOLVED, shim.log) == 2


def test_a_name_that_resolves_no_more_keeps_its_links(net: Net) -> None:
    net.dns.set(NAME, "127.0.0.2")
    ingress = net.ingress("127.0.0.2")
    shim = net.shim(*OFTEN)
    del net.dns.names[NAME]
    shim.wait_log(UNRESOLVED)
    net.ask(ingress)
    ingress.kill()
    # the last address that was known is dialled on
    mark = len(shim.log)
    ingress = net.ingress("127.0.0.2")
    wait_registered(shim, "127.0.0.2", after=mark)
    net.ask(ingress)


def test_a_name_server_that_does_not_answer_holds_up_nobody(net: Net) -> None:
    net.dns.silence(NAME)
    ingress = net.ingress("127.0.0.2")
    shim = net.shim(endpoint=[f"tcp://127.0.0.2:{PORT}", ENDPOINT])
    net.dns.wait_questions(NAME, 1)
    for _ in range(5):
        seconds, _ = timed(lambda: net.ask(ingress))
        assert seconds < 0.5
    # nor the end: a lookup is under way
    net.dns.wait_questions(NAME, net.dns.questions(NAME) + 1)
    seconds, _ = timed(shim.stop)
    assert seconds < 1.0


def test_two_addresses_of_one_ingress_are_one_link(net: Net) -> None:
    """Each HELLO would replace the other's registration, as often as the silent one gives up:
    here after two seconds and a half."""
    net.dns.set(NAME, "127.0.0.2", "127.0.0.3")
    ingress = net.ingress("0.0.0.0", "--insecure-shims", "--link-silent-timeout-ms", "2500")
    shim = net.shim("--resolve-interval", "500ms")
    shim.wait_log("another address leads to the same ingress")
    net.dns.wait_questions(NAME, net.dns.questions(NAME) + 9)
    assert count("msg=registered", shim.log) == 1
    assert count("container registered", ingress.log) == 1
    assert "link lost" not in shim.log
    net.ask(ingress)
    # when that one is lost, either address will do
    mark = len(shim.log)
    ingress.kill()
    ingress = net.ingress("0.0.0.0", "--insecure-shims")
    shim.wait_registered(after=mark)
    net.ask(ingress)


def test_a_second_address_of_an_ingress_loses_no_call(net: Net) -> None:
    """It comes while calls are in flight over the first, which goes on when it goes again."""
    gate = net.server.gate()
    net.server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"hello")))
    net.dns.set(NAME, "127.0.0.2")
    ingress = net.ingress("0.0.0.0", "--insecure-shims")
    shim = net.shim(*OFTEN)
    with net.namespace.inside():
        client = ingress.client()
    client.send(http.request("POST", body=b"once"))
    net.server.next_request()
    net.dns.set(NAME, "127.0.0.2", "127.0.0.3")
    shim.wait_log("another address leads to the same ingress")
    net.dns.set(NAME, "127.0.0.2")
    shim.wait_log("an ingress's address is gone.*127.0.0.3")
    gate.set()
    assert assert_answer(client.read_response()).body == b"hello"
    assert net.server.requests.empty()
    assert count("msg=registered", shim.log) == 1


@pytest.mark.parametrize("listens", ["127.0.0.1", "[::1]"])
def test_the_other_family_is_tried_when_nobody_is_at_the_first(net: Net, listens: str) -> None:
    net.dns.set(NAME, "127.0.0.1", "::1")
    ingress = net.ingress(listens)
    shim = net.shim()
    wait_registered(shim, listens)
    net.ask(ingress)


def test_of_two_families_that_lead_to_one_ingress_one_is_used(net: Net) -> None:
    net.dns.set(NAME, "127.0.0.1", "::1")
    ingress = net.ingress("[::]", "--insecure-shims")
    shim = net.shim(*OFTEN)
    net.dns.wait_questions(NAME, 4)
    assert count("msg=registered", shim.log) == 1
    net.ask(ingress)

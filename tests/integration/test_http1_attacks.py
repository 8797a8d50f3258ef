"""Request smuggling: what two parsers could read differently is refused, and nothing hidden in it reaches the upstream."""

import pytest

from support.rawhttp import fetch
from support.smuggling import ACCEPTED, configuration, corpus, exchange

REFUSALS = {400, 403, 404, 426, 431, 501}


@pytest.fixture(scope="module")
def proxy(shared_sluice, shared_upstream):
    return shared_sluice(configuration(shared_upstream))


@pytest.mark.parametrize("name", corpus())
def test_smuggling(proxy, shared_upstream, name):
    if name in ACCEPTED:
        statuses, requests = ACCEPTED[name]
        assert exchange(proxy.port(), shared_upstream, corpus()[name], len(statuses)) == (statuses, requests)
        return
    statuses, requests = exchange(proxy.port(), shared_upstream, corpus()[name])
    assert requests == [] and len(statuses) <= 1 and set(statuses) <= REFUSALS
    assert fetch(proxy.port()).status == 200


def test_corpus_is_large():
    assert len(corpus()) > 200 and set(ACCEPTED) < set(corpus())

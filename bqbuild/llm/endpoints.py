"""Several servers of one LLM: which of them takes the next request, and which are left out for a while. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from bqbuild.core.errors import ProviderError
from bqbuild.llm.redaction import bare_url
from bqbuild.llm.throttle import Throttle

REST_SECONDS = (1.0, 30.0)
"""How long an endpoint that failed is left out, first and at most, while another one works."""
MISSES = 3
"""Failures in a row after which an endpoint is left out; a broken connection counts for all of them."""
ELSEWHERE = frozenset({"transport", "server", "rate_limit", "setup", "reply"})
"""Failures of one server that another one need not share. A time-out is not among them: the request itself may be what
takes so long, and its next attempt goes elsewhere anyhow."""


@dataclass(slots=True, eq=False)
class Endpoint:
    """One base URL and how it does; times are in seconds of the loop's clock."""

    url: URL
    shown: str
    proxy: URL | None
    throttle: Throttle
    in_flight: int = 0
    misses: int = 0
    rests: int = 0
    resting_until: float = 0.0
    used: int = field(default=0)

    def room(self, now: float) -> int:
        """How many requests it may have in flight: none while it rests, one to see whether it is back."""
        if now < self.resting_until:
            return 0
        return self.throttle.limit if self.misses < MISSES else 1

    def answered(self, started: float, now: float, tokens: int) -> None:
        """It works."""
        self.misses = self.rests = 0
        self.throttle.succeeded(started, now, tokens)

    def failed(self, failure: ProviderError, started: float, now: float) -> None:
        """It failed a request that `started` then: it gets less, or a rest that is longer each time."""
        kind = "rate_limit" if failure.overloaded else failure.kind
        if kind in ("transport", "setup"):
            self.misses = MISSES
        elif kind != "rate_limit" or self.throttle.limit == 1:  # one that has too much first gets less
            self.misses += 1
        self.throttle.failed(kind, started, now, self.in_flight)
        first, most = REST_SECONDS
        if failure.retry_after is not None:
            self.resting_until = max(self.resting_until, now + failure.retry_after)
        elif self.misses >= MISSES and now >= self.resting_until:  # once for all that fail together
            self.resting_until = now + min(first * 2**self.rests, most)
            self.rests = min(self.rests + 1, 16)
            self.throttle.restart()


class Endpoints:
    """The servers of one connection."""

    def __init__(self, urls: Sequence[str], most: int) -> None:
        self._all = [_endpoint(url, most) for url in urls]

    def __len__(self) -> int:
        return len(self._all)

    def capacity(self, now: float) -> int:
        """How many requests they take together; at least one, or nobody would find out that they are back."""
        return max(sum(endpoint.room(now) for endpoint in self._all), 1)

    def choose(self, now: float, tried: Collection[Endpoint] = ()) -> Endpoint | None:
        """The least loaded one that works, or where none does the one that has rested longest.

        None where all that work have been tried for this request.
        """
        if len(self._all) == 1:
            return None if tried else self._all[0]
        chosen, least = None, (float("inf"), 0)
        for endpoint in self._all:
            room = endpoint.room(now)
            load = (endpoint.in_flight / room if room else float("inf"), endpoint.used)
            # one that may be back is asked once, not by everybody
            asked_already = endpoint.misses >= MISSES and endpoint.in_flight
            if room and not asked_already and load < least and endpoint not in tried:
                chosen, least = endpoint, load
        if chosen is None and not tried:
            chosen = min(self._all, key=lambda endpoint: (endpoint.resting_until, endpoint.in_flight))
        if chosen is not None:
            chosen.used += 1
        return chosen


def _endpoint(base_url: str, most: int) -> Endpoint:
    base = URL(base_url)
    # A query (Azure's `api-version`) belongs behind the path.
    url = base.with_path(f"{base.path.rstrip('/')}/chat/completions").with_query(base.query)
    return Endpoint(url, bare_url(base_url), _proxy(url), Throttle(most))


def _proxy(url: URL) -> URL | None:
    """The proxy that the environment names for `url`; asked once, as aiohttp would ask for every request."""
    host = url.host or ""
    if host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass(host):
        return None
    proxy = getproxies().get(url.scheme)
    return URL(proxy) if proxy else None

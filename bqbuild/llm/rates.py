"""Requests and tokens a minute: what a connection may send, so that a quota is kept and not run into. Pure."""

from __future__ import annotations

from bqbuild.core.records import ChatReply, ChatRequest

CHARACTERS_A_TOKEN = 4.0
FIRST_GUESS = 256
"""Tokens of a reply, where a request has no `max_tokens` and nothing was answered yet."""
_LEARN = 1 / 16


class Bucket:
    """A token bucket: holds one second's worth, and refills so that no minute sees more than `per_minute`.

    A bucket that held a whole minute's worth would let twice as much through in its first minute.
    """

    __slots__ = ("_at", "_level", "_most", "_per_second")

    def __init__(self, per_minute: float) -> None:
        self._most = max(1.0, per_minute / 60)
        self._per_second = (per_minute - self._most + 1) / 60 if per_minute > 1 else per_minute / 60
        self._level = self._most
        self._at = 0.0

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0 for at once. More than the bucket holds waits for a full one."""
        self._refill(now)
        missing = min(amount, self._most) - self._level
        # what rounding leaves must not be waited for
        return missing / self._per_second if missing > 1e-9 * self._most else 0.0

    def take(self, amount: float) -> None:
        """Take `amount`; the bucket may then owe."""
        self._level -= amount

    def give(self, amount: float) -> None:
        """Give back what was taken too much; or take, where `amount` is negative."""
        self._level = min(self._level + amount, self._most)

    def _refill(self, now: float) -> None:
        self._level = min(self._level + max(now - self._at, 0.0) * self._per_second, self._most)
        self._at = now


class Rates:
    """The quotas of one connection. Estimates of tokens are corrected by what the server counted."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = Bucket(requests_per_minute) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute) if tokens_per_minute else None
        self._input_factor = 1.0
        self._output: float | None = None

    def estimate(self, request: ChatRequest) -> float:
        """The tokens that a request will probably cost; 0 where tokens are not limited."""
        if self._tokens is None:
            return 0.0
        limit = request.params.get("max_tokens") or request.params.get("max_completion_tokens")
        most = float(limit) if isinstance(limit, int | float) else None
        output = self._output if self._output is not None else most if most is not None else float(FIRST_GUESS)
        return _guess_input(request) * self._input_factor + (output if most is None else min(output, most))

    def wait(self, tokens: float, now: float) -> float:
        """Seconds until a request of so many tokens may be sent; 0 for at once."""
        wait = self._requests.wait(1.0, now) if self._requests is not None else 0.0
        return max(wait, self._tokens.wait(tokens, now)) if self._tokens is not None else wait

    def take(self, tokens: float) -> None:
        """A request of so many tokens is sent."""
        if self._requests is not None:
            self._requests.take(1.0)
        if self._tokens is not None:
            self._tokens.take(tokens)

    def answered(self, request: ChatRequest, estimate: float, reply: ChatReply) -> None:
        """Correct the estimate by the server's own count, and estimate better from now on."""
        counted = reply.input_tokens + reply.output_tokens
        if self._tokens is None or not counted:
            return
        self._tokens.give(estimate - counted)
        factor = reply.input_tokens / max(_guess_input(request), 1.0)
        if reply.input_tokens:
            self._input_factor += (factor - self._input_factor) * _LEARN
        known = self._output if self._output is not None else float(reply.output_tokens)
        self._output = known + (reply.output_tokens - known) * _LEARN

    def refused(self, estimate: float) -> None:
        """The server did no work for a request: its tokens were not used."""
        if self._tokens is not None:
            self._tokens.give(estimate)


def _guess_input(request: ChatRequest) -> float:
    return sum(len(message.content) for message in request.messages) / CHARACTERS_A_TOKEN + 4 * len(request.messages)

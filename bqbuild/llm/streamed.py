"""A reply that comes in pieces: server-sent events of chat completions put together again. Pure.

Bytes are cut into lines before anything is decoded, so that it does not matter where the network cut them.
"""

from __future__ import annotations

from typing import Any

from bqbuild.core.errors import ProviderError
from bqbuild.core.records import ChatReply
from bqbuild.llm.chat_format import FINISH, count_of, error_message, loads, read_failure, text_of

_DATA = b"data:"
_DONE = b"[DONE]"


class StreamedReply:
    """Takes in the bytes of a stream. `is_whole` says that nothing more needs to come."""

    def __init__(self) -> None:
        self.size = 0
        self._begun: list[bytes] = []
        self._pending: list[bytes] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._finish: str | None = None
        self._usage: dict[str, Any] = {}
        self._model = self._fingerprint = ""
        self._is_done = False

    @property
    def is_whole(self) -> bool:
        """Whether the server has said that the reply is at its end."""
        return self._is_done or self._finish is not None

    def feed(self, data: bytes) -> None:
        """Take in what came. Raises ProviderError for what is no chat completion, or where the server says so."""
        self.size += len(data)
        lines = data.split(b"\n")
        self._begun.append(lines[0])
        if len(lines) == 1:
            return
        lines[0] = b"".join(self._begun)
        self._begun = [lines.pop()]
        for line in lines:
            self._line(line.strip())

    def reply(self) -> ChatReply:
        """The reply, when the stream has ended. Raises ProviderError where its end is missing."""
        self._line(b"".join(self._begun).strip())
        self._line(b"")
        self._begun = []
        if not self.is_whole:
            raise ProviderError("the stream broke off before the reply's end", kind="transport", retryable=True)
        refusal = _joined(self._refusal)
        finish = self._finish or ""
        return ChatReply(
            text=_joined(self._text) or refusal,
            reasoning=_joined(self._reasoning),
            finish_reason="refusal" if refusal else FINISH.get(finish, finish),
            input_tokens=count_of(self._usage.get("prompt_tokens")),
            output_tokens=count_of(self._usage.get("completion_tokens")),
            model=self._model,
            fingerprint=self._fingerprint,
        )

    def _line(self, line: bytes) -> None:
        if line.startswith(_DATA):
            data = line[len(_DATA) :].strip()
            if self._pending or not self._take(data):
                self._pending.append(data)  # an event may have several lines
        elif not line and self._pending:
            event, self._pending = b"\n".join(self._pending), []
            if not self._take(event):
                shown = error_message(event)
                raise ProviderError(f"the stream holds something else: {shown}", kind="reply", retryable=True)

    def _take(self, data: bytes) -> bool:
        """Take in one event; False where it is no JSON."""
        if data == _DONE:
            self._is_done = True
            return True
        event = loads(data)
        if event is None:
            return False
        if isinstance(event, dict):
            if event.get("error"):
                raise _said(event["error"], data)
            self._add(event)
        return True

    def _add(self, event: dict[str, Any]) -> None:
        self._model = text_of(event.get("model")) or self._model
        self._fingerprint = text_of(event.get("system_fingerprint")) or self._fingerprint
        if isinstance(event.get("usage"), dict):
            self._usage = event["usage"]
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.get("index", 0) not in (0, None):
                continue
            delta = choice.get("delta")
            if isinstance(delta, dict):
                _add_text(self._text, delta.get("content"))
                _add_text(self._reasoning, delta.get("reasoning_content") or delta.get("reasoning"))
                _add_text(self._refusal, delta.get("refusal"))
            self._finish = text_of(choice.get("finish_reason")) or self._finish


def _add_text(parts: list[str], value: Any) -> None:
    # halves of a character may come in two pieces, so they are looked at when all is there
    parts.append(value if isinstance(value, str) else text_of(value))


def _joined(parts: list[str]) -> str:
    text = "".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _said(error: Any, data: bytes) -> ProviderError:
    """The error that a server sends in place of the rest of a reply."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return read_failure(status, error_message(data), None)

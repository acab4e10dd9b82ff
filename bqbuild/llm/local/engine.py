"""Continuous batching: rows join the batch as places fall free, and leave it as they end.

One step is one forward pass. A row that is being written feeds the token it drew last (and tokens that its schema
forces); rows that have just joined feed their prompt, as many tokens as the step has left. Nothing is padded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import torch
from torch import Tensor

from bqbuild.llm.local.attention import Feed, Prefix, Slots, Step
from bqbuild.llm.local.choices import LabelTree, label_scores
from bqbuild.llm.local.constrain import Constrainer, Guide
from bqbuild.llm.local.model import LocalModel
from bqbuild.llm.local.prefixes import PrefixCache, Tokens
from bqbuild.llm.local.prompts import PromptEncoder
from bqbuild.llm.local.sampling import Sampling, draw, penalise

STEP_TOKENS = 512
"""Prompt tokens that one step takes: enough for a matrix product to be efficient, and little memory."""

PREFIX_BYTES = 256 << 20
ROWS_BYTES = 2 << 30
"""Keys and values that prefixes, and rows under way, may take."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One request, ready to run: its tokens, how to sample, and a schema's guide or a tree of labels where it has one.

    `seed` decides every draw, so that a reply does not depend on the rows that happen to share its batch.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    seed: int
    guide: Guide | None = None
    labels: LabelTree | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job: the reply's text, or the labels' log-probabilities; `finish_reason` is `stop` or `length`."""

    text: str = ""
    scores: Tensor | None = None
    finish_reason: str = "stop"
    tokens: int = 0


@dataclass(slots=True, eq=False)
class _Row:
    """A job under way. `pending` are tokens not yet fed, `made` is the reply so far, `nodes` logits of the label tree,
    `room` the tokens that it may come to hold, `outcome` is set when it has ended."""

    job: Job
    random: Random
    prefix: Prefix | None
    pending: list[int]
    made: list[int]
    room: int
    at_tree: bool = False
    nodes: dict[int, Tensor] = field(default_factory=dict)
    outcome: Outcome | None = None


class Engine:
    """Runs jobs on one model, `rows` at a time; row i holds slot i. Not thread-safe: one thread owns it."""

    def __init__(self, model: LocalModel, encoder: PromptEncoder, constrainer: Constrainer, rows: int) -> None:
        self._model = model
        self._encoder = encoder
        self._constrainer = constrainer
        self._limit = rows
        self._slots = Slots(rows + 1)  # the last one is for computing prefixes
        self._prefixes = PrefixCache(PREFIX_BYTES)
        self._waiting: deque[tuple[Job, Tokens, list[int]]] = deque()
        self._rows: list[_Row] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self._rows or self._waiting)

    def add(self, job: Job) -> None:
        """Queue a job. What its schema forces at the beginning is fed with the prompt."""
        forced = job.guide.forced() if job.guide is not None else []
        tokens = (*job.prompt, *forced)
        self._prefixes.expect(tokens)
        self._waiting.append((job, tokens, forced))

    def step(self) -> list[tuple[Job, Outcome]]:
        """One forward pass; the jobs that it ended."""
        self._admit()
        feeds = self._feeds()
        if not feeds:
            return []
        logits = torch.split(self._model.forward(Step(self._slots, feeds)), [len(feed.wanted) for feed in feeds])
        writing = []
        for feed, mine in zip(feeds, logits, strict=True):
            row = self._rows[feed.slot]
            if row.job.labels is not None and feed.wanted:
                self._weigh(row, row.job.labels, mine)
            elif feed.wanted:
                writing.append((row, mine[0]))
        if writing:
            self._write([row for row, _ in writing], torch.stack([mine for _, mine in writing]))
        return self._leave()

    def _admit(self) -> None:
        """Give free places to waiting jobs, and compute the prefixes that they share first."""
        batch = list(self._waiting)[: self._limit - len(self._rows)]
        if not batch:
            return
        for shared in self._prefixes.missing([tokens for _, tokens, _ in batch]):
            self._compute_prefix(shared)
        for job, tokens, forced in batch:
            prefix = self._prefixes.longest(tokens)
            suffix = list(tokens[len(prefix.tokens) :] if prefix else tokens)
            room = len(suffix) + (len(job.labels.tokens) if job.labels else job.sampling.max_tokens)
            if not self._has_memory(room):
                return
            self._waiting.popleft()
            self._slots.reserve(room)
            self._slots.lengths[len(self._rows)] = 0
            self._rows.append(_Row(job, Random(job.seed), prefix, suffix, list(forced), room))

    def _has_memory(self, room: int) -> bool:
        """Whether one more row may hold `room` tokens now; a row that is alone always may."""
        limit = ROWS_BYTES // self._model.bytes_per_token
        if not self._rows:
            if self._slots.capacity * len(self._slots.lengths) > limit:
                self._slots.release()
            return True
        return sum(row.room for row in self._rows) + room <= limit

    def _compute_prefix(self, tokens: Tokens) -> None:
        """Run a prefix in the spare slot and keep its keys and values."""
        parent = self._prefixes.longest(tokens)
        had, slot = len(parent.tokens) if parent else 0, self._limit
        self._slots.reserve(len(tokens) - had)
        for start in range(had, len(tokens), STEP_TOKENS):
            part = tokens[start : start + STEP_TOKENS]
            self._model.forward(Step(self._slots, [Feed(slot, part, range(start, start + len(part)), parent, ())]))
        self._prefixes.keep(self._slots.as_prefix(slot, tokens, parent))
        self._slots.lengths[slot] = 0

    def _feeds(self) -> list[Feed]:
        """What the rows feed in this step: those that need least first, so that no prompt holds up a reply."""
        left = STEP_TOKENS
        feeds: list[Feed] = []
        for slot, row in sorted(enumerate(self._rows), key=lambda item: len(item[1].pending)):
            if left <= 0:
                break
            start = (len(row.prefix.tokens) if row.prefix else 0) + self._slots.lengths[slot]
            if row.at_tree and row.job.labels is not None:
                feeds.append(self._tree_feed(slot, row.prefix, row.job.labels, start))
            else:
                tokens, row.pending = row.pending[:left], row.pending[left:]
                wanted = () if row.pending else (len(tokens) - 1,)
                feeds.append(Feed(slot, tokens, range(start, start + len(tokens)), row.prefix, wanted))
            left -= len(feeds[-1].tokens)
        return feeds

    def _tree_feed(self, slot: int, prefix: Prefix | None, tree: LabelTree, start: int) -> Feed:
        """The nodes of a label tree: each sees the whole prompt, its ancestors and itself."""
        prompt = torch.ones(len(tree.tokens), self._slots.lengths[slot], dtype=torch.bool)
        mask = torch.cat((prompt, torch.tensor(tree.mask)), 1)
        positions = [start + depth - 1 for depth in tree.depths]
        return Feed(slot, tree.tokens, positions, prefix, range(len(tree.tokens)), mask)

    def _weigh(self, row: _Row, tree: LabelTree, logits: Tensor) -> None:
        """Take the logits after nodes of a label tree, and weigh the labels once all are there."""
        nodes = range(1, len(tree.tokens) + 1) if row.at_tree else [0]
        row.nodes.update(zip(nodes, logits, strict=True))
        if tree.tokens and not row.at_tree:
            row.at_tree = True
            return
        row.outcome = Outcome(scores=label_scores(tree, row.nodes))

    def _write(self, rows: Sequence[_Row], logits: Tensor) -> None:
        """Draw the next token of rows whose replies are being written: logits [rows, vocabulary]."""
        logits += self._model.banned
        for index, row in enumerate(rows):
            penalise(logits[index], row.job.sampling, row.made)
        self._constrainer.forbid(logits, [(i, row.job.guide) for i, row in enumerate(rows) if row.job.guide])
        tokens = draw(logits, [row.job.sampling for row in rows], [row.random.random() for row in rows])
        for row, token in zip(rows, tokens, strict=True):
            self._go_on(row, token)

    def _go_on(self, row: _Row, token: int) -> None:
        """Add a drawn token, and what the row's schema forces after it; end the row where that ends the reply."""
        guide, sampling = row.job.guide, row.job.sampling
        if token in self._model.ends:
            row.outcome = self._outcome(row, "stop")
            return
        row.pending = [token]
        if guide is not None:
            guide.take(token)
            row.pending += guide.forced()
        row.made += row.pending
        whole = guide is not None and guide.done and len(row.made) <= sampling.max_tokens
        if whole or (sampling.stop and self._has_stop(row)):
            row.outcome = self._outcome(row, "stop")
        elif len(row.made) >= sampling.max_tokens:
            del row.made[sampling.max_tokens :]
            row.outcome = self._outcome(row, "length")

    def _has_stop(self, row: _Row) -> bool:
        """Whether a stop text has just been completed: it ends in the newest tokens."""
        reach = len(row.pending) + max(len(stop.encode()) for stop in row.job.sampling.stop)
        text = self._encoder.decode(row.made[-reach:])
        return any(stop in text for stop in row.job.sampling.stop)

    def _outcome(self, row: _Row, reason: str) -> Outcome:
        """The reply as text, up to the first stop text."""
        text = self._encoder.decode(row.made)
        ends = [text.find(stop) for stop in row.job.sampling.stop if stop in text]
        return Outcome(text[: min(ends, default=len(text))], finish_reason=reason, tokens=len(row.made))

    def _leave(self) -> list[tuple[Job, Outcome]]:
        """Take the rows that have ended out of the batch; the last row moves to the place that falls free."""
        left = []
        for slot in reversed(range(len(self._rows))):
            row = self._rows[slot]
            if row.outcome is None:
                continue
            left.append((row.job, row.outcome))
            last = self._rows.pop()
            if last is not row:
                self._slots.move(len(self._rows), slot)
                self._rows[slot] = last
            self._slots.lengths[len(self._rows)] = 0
        return left

"""Sequences decoded step by step: greedy, sampled and beam search, many rows at once.

All of it works over any `step(token, state) -> (logits, state)`, where `token` is (row,), `logits` are
(row, vocabulary) and the state is a tensor with the rows first, or a nested tuple of them; the searches write into the
logits. What no step changes, such as a picture that is described, may be `given` apart: the step gets it as a third
argument, one row a sequence. With a beam of k (in the first step of 1), tokens i*k to i*k + k - 1 belong to the i-th
sequence. Sequences that are done drop out on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..config import Spec
from ..data.vocabulary import BEGIN, END, PAD, UNKNOWN
from ..errors import NotFinite
from .cores import State, map_state

Step = Callable[..., tuple[Float[Tensor, "row vocabulary"], State]]
"""Step of tokens (row), a state and, where something is given, that."""
Choose = Callable[[Float[Tensor, "row vocabulary"]], Int[Tensor, "row"]]
_NEVER = (PAD, BEGIN, UNKNOWN)
"""Marks that are never said."""
LEAVE = 1 / 32
"""Share of sequences that must be done before they drop out: to copy the others takes time too."""
GROUP = 64
"""Entries of which `largest` looks at the maximum first."""


@dataclass(frozen=True)
class Sampling(Spec):
    """How a token is drawn from what the model thinks likely."""

    temperature: float = 1.0
    """Temperature of the draw: below 1 the likely becomes likelier; 0: always the likeliest."""
    top_k: int = 0
    """Number of tokens, the likeliest, that are drawn from; 0: all."""
    top_p: float = 1.0
    """Share of the probability that the likeliest, which are drawn from, hold together (Holtzman et al. 2020)."""

    BOUNDS = {"temperature": (0, inf), "top_k": (0, inf), "top_p": (1e-9, 1)}

    def draw(
        self, logits: Float[Tensor, "row vocabulary"], generator: torch.Generator | None = None
    ) -> Int[Tensor, "row"]:
        """A token a row. NotFinite where a logit is none of a model that learned well: NaN or infinite."""
        top = logits.amax(1, keepdim=True)
        if not top.isfinite().all():
            raise NotFinite("a logit is NaN or infinite")
        if self.temperature == 0:
            return logits.argmax(1)
        # Less the largest: over a small temperature it would be infinite.
        logits = (logits.double() - top) / self.temperature
        if self.top_k:
            least = largest(logits, min(self.top_k, logits.shape[1]))[0][:, -1:]
            logits = logits.masked_fill(logits < least, -inf)
        if self.top_p < 1:
            ordered, order = logits.sort(dim=1, descending=True, stable=True)
            share = ordered.softmax(1)
            beyond = share.cumsum(1) - share >= self.top_p  # The one that crosses it is kept, and so is the first.
            beyond[:, 0] = False
            logits = logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -inf)
        return torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


PLAIN = Sampling()
"""Sampling of each token as likely as the model thinks."""


@dataclass(frozen=True)
class Hypothesis:
    """One sequence, without its marks; `score` is the log-probability of it and its end."""

    tokens: list[int]
    score: float
    ended: bool = True
    """False where it was cut off at the greatest length."""

    def normalised(self, length_penalty: float) -> float:
        return normalised(self.score, len(self.tokens) + self.ended, length_penalty)


def normalised(score, length, length_penalty: float):
    """A score over a power of the length: with none, short sequences win (Graves 2012; Wu et al. 2016)."""
    return score / length**length_penalty


def greedy(
    step: Step, state: State, rows: int, max_length: int | Int[Tensor, "row"], given: State | None = None
) -> list[Hypothesis]:
    """The likeliest token at every step."""
    return follow(step, state, rows, max_length, lambda logits: logits.argmax(1), given)


def sample(
    step: Step,
    state: State,
    rows: int,
    max_length: int | Int[Tensor, "row"],
    sampling: Sampling = Sampling(),
    generator: torch.Generator | None = None,
    given: State | None = None,
) -> list[Hypothesis]:
    """A token drawn at every step."""
    return follow(step, state, rows, max_length, lambda logits: sampling.draw(logits, generator), given)


@torch.no_grad()
def follow(
    step: Step,
    state: State,
    rows: int,
    max_length: int | Int[Tensor, "row"],
    choose: Choose,
    given: State | None = None,
) -> list[Hypothesis]:
    """One token a step and row, until every row has said its end or is as long as it may be."""
    token, limit = torch.full((rows,), BEGIN), _limits(max_length, rows)
    going, score, at = torch.ones(rows, dtype=torch.bool), torch.zeros(rows), torch.arange(rows)
    said = torch.full((rows, int(limit.max()) if rows else 0), PAD)
    for length in range(said.shape[1]):
        logits, state = step(token, state) if given is None else step(token, state, given)
        logits = _sayable(logits)
        token = choose(logits)
        gained = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(1)
        score[at] += torch.where(going, gained, 0.0)
        said[at, length] = torch.where(going, token, PAD)
        going = going & (token != END) & (limit[at] > length + 1)
        if not going.any():
            break
        if (~going).sum() >= LEAVE * len(going):
            keep = going.nonzero().flatten()
            token, going, at = token[keep], going[keep], at[keep]
            state, given = _rows_of(state, keep), None if given is None else _rows_of(given, keep)
    return [_row(tokens, value) for tokens, value in zip(said.tolist(), score.tolist(), strict=True)]


@torch.no_grad()
def beam(
    step: Step,
    state: State,
    rows: int,
    max_length: int | Int[Tensor, "row"],
    beam_width: int = 5,
    length_penalty: float = 1.0,
    given: State | None = None,
) -> list[list[Hypothesis]]:
    """The best sequences, best first by score / length ** length_penalty; `beam_width` are kept at every step.

    A sequence is ended where its end is among the `beam_width` best continuations. A row is done when `beam_width` have
    ended and none that goes on is as good, at its length, as the worst of them.
    """
    at = _Beams(rows, beam_width, length_penalty, _limits(max_length, rows))
    while len(at.names):
        tokens, before = at.token.flatten(), len(at.names)
        logits, state = step(tokens, state) if given is None else step(tokens, state, given)
        keep, source = at.extend(_sayable(logits).view(*at.token.shape, -1))
        state = _rows_of(state, source)
        if given is not None and len(keep) < before:
            given = _rows_of(given, keep)
    return at.found()


class _Beams:
    """The sequences of a beam search: those that go on, and those that have ended (the pool)."""

    def __init__(self, rows: int, beam_width: int, length_penalty: float, limit: Tensor):
        self.beam_width, self.length_penalty, self.limit = beam_width, length_penalty, limit
        self.names = torch.arange(rows)
        """Which row is which: rows that are done drop out."""
        # All are alike at first: one is enough.
        self.token = torch.full((rows, 1), BEGIN)
        self.tokens = torch.empty(rows, 1, 0, dtype=torch.int64)
        self.score = torch.zeros(rows, 1)
        self.pool = torch.full((rows, beam_width), -inf)
        self.ended: list[list[tuple[float, Hypothesis]]] = [[] for _ in range(rows)]
        self.done = torch.zeros(rows, dtype=torch.bool)

    def extend(self, logits: Float[Tensor, "row beam vocabulary"]) -> tuple[Int[Tensor, "row"], Int[Tensor, "rows"]]:
        """Goes on by one token; gives the rows that are left, and the row of the state that each one goes on from."""
        beams, vocabulary = logits.shape[1:]
        best, place = self._candidates(logits)
        parent, token = place // vocabulary, place % vocabulary
        length = self.tokens.shape[2] + 1
        ends = token == END
        self._end(best[:, : self.beam_width], parent, ends[:, : self.beam_width], length)
        # The first `beam_width` that do not end go on; there are as many, for each sequence has but one end.
        order = (ends.long() * ends.shape[1] + torch.arange(ends.shape[1])).argsort(1)[:, : self.beam_width]
        self.score, self.token, parent = (t.gather(1, order) for t in (best, token, parent))
        self.score = self.score.masked_fill(self.token == END, -inf)
        before = self.tokens.gather(1, parent[:, :, None].expand(-1, -1, length - 1))
        self.tokens = torch.cat((before, self.token[:, :, None]), 2)
        self._close(length)
        keep = self._leave()
        return keep, (keep[:, None] * beams + parent[keep]).flatten()

    def _leave(self) -> Int[Tensor, "row"]:
        """Drops the rows that are done, where they are many; gives the places of the others."""
        if not self.done.all() and self.done.sum() < LEAVE * len(self.done):
            return torch.arange(len(self.done))
        keep = (~self.done).nonzero().flatten()
        for name in ("names", "token", "tokens", "score", "pool", "limit", "done"):
            setattr(self, name, getattr(self, name)[keep])
        return keep

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the best continuations, twice as many as go on, and their places in (beam, vocabulary)."""
        total = logits.log_softmax(2).add_(self.score[:, :, None])
        total[total[:, :, END].isnan().nonzero(as_tuple=True)] = -inf  # Where nothing at all can follow.
        total = total.flatten(1)
        return largest(total, min(2 * self.beam_width, total.shape[1]))

    def _end(self, best: Tensor, parent: Tensor, ends: Tensor, length: int) -> None:
        there = ends & ~self.done[:, None] & best.isfinite()
        if not there.any():
            return
        value = normalised(best, length, self.length_penalty).masked_fill(~there, -inf)
        self.pool = torch.cat((self.pool, value), 1).topk(self.beam_width, 1).values
        row, place = there.nonzero(as_tuple=True)
        found = self.names[row], self.tokens[row, parent[row, place]], best[there], value[there]
        for name, tokens, score, worth in zip(*(t.tolist() for t in found), strict=True):
            self.ended[name].append((worth, Hypothesis(tokens, score)))

    def _close(self, length: int) -> None:
        """Marks the rows that are done; of one that is so by its length, what goes on is kept if nothing ended."""
        hope = normalised(self.score.amax(1), length, self.length_penalty)
        self.done |= self.pool.amin(1) >= hope
        for row in ((length >= self.limit) & ~self.done).nonzero().flatten().tolist():
            self.done[row] = True
            if not self.ended[self.names[row]]:
                said = zip(self.tokens[row].tolist(), self.score[row].tolist(), strict=True)
                self.ended[self.names[row]] = [
                    (normalised(s, length, self.length_penalty), Hypothesis(t, s, False)) for t, s in said if s > -inf
                ]

    def found(self) -> list[list[Hypothesis]]:
        ordered = (sorted(row, key=lambda one: -one[0]) for row in self.ended)
        return [[said for _, said in row[: self.beam_width]] for row in ordered]


def largest(x: Float[Tensor, "row n"], k: int) -> tuple[Float[Tensor, "row k"], Int[Tensor, "row k"]]:
    """`x.topk(k)`, sooner: the k largest lie in the k groups with the largest maxima."""
    rows, n = x.shape
    groups = n // GROUP
    if groups <= 2 * k:
        return x.topk(k, 1)
    # The i-th of each group lie side by side, so that their maxima are found many at a time.
    head = x[:, : groups * GROUP].view(rows, GROUP, groups)
    best = head.amax(1).topk(k, 1).indices
    places = (best[:, None] + groups * torch.arange(GROUP)[:, None]).flatten(1)
    places = torch.cat((places, torch.arange(groups * GROUP, n).expand(rows, -1)), 1)
    value, index = x.gather(1, places).topk(k, 1)
    return value, places.gather(1, index)


def _sayable(logits: Tensor) -> Tensor:
    logits = logits.float()
    if not (logits.amax(1) < inf).all():
        raise NotFinite("a logit is NaN or infinite")
    logits[:, list(_NEVER)] = -inf
    return logits


def _rows_of(state: State, rows: Int[Tensor, "row"]) -> State:
    return map_state(lambda t: t[rows], state)


def _limits(max_length: int | Tensor, rows: int) -> Int[Tensor, "row"]:
    return torch.full((rows,), max_length) if isinstance(max_length, int) else max_length


def _row(tokens: list[int], score: float) -> Hypothesis:
    ended = END in tokens
    return Hypothesis(tokens[: tokens.index(END)] if ended else [t for t in tokens if t != PAD], score, ended)

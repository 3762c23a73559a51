"""Which concepts matter for an output: semantic importance by betting (SKIT, Teneggi et al. 2024, arXiv 2405.19146).

A sceptic of each concept offers a fair game, and we bet against it, round after round. Where the concept does not
matter the wealth is a martingale that starts at 1, so that by Ville's inequality it ever reaches 1 / alpha with
probability alpha at most: a test may look after every round, and stop when it likes. How soon the wealth gets there
ranks the concepts that matter. The three games differ in what "does not matter" means:

globally           Y ⟂ Z_j                    two rows, against the same two with their scores exchanged (HSIC)
conditionally      Y ⟂ Z_j | all other Z      a row, against the same with a score drawn given the others (cMMD)
locally            Y with and without j       an output drawn with the concept known, against one without (xMMD)

1. A payoff is tanh of a witness on what was seen minus the witness on the exchange, so it changes its sign when the
   two change places: under the null it is as likely as its opposite.
2. The witness is a mean over past rounds only, with Gaussian kernels whose bandwidths are standard deviations of the
   past. It is measured in root mean squares of its own past (our choice), so that faint concepts are bet on too.
3. The bet is a share of the wealth, by an online Newton step (Cutkosky and Orabona 2018) between 0 and 1/2.

Axes: [row, concept] for scores, [row, d_out] for outputs. All rows are independent draws: tokens of one document are
not, so take one of each.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

NEWTON = 2 / (2 - math.log(3))
"""Step of the online Newton method for payoffs in -1..1 and bets up to 1/2."""

Sampler = Callable[[Tensor, int], Tensor]
"""Draws scores of a concept [row] given all others: from the scores [row, concept] and the number of the concept."""


@dataclass(frozen=True)
class Bets:
    """How bets against the unimportance of concepts went."""

    log_wealth: Float[Tensor, "round concept"]
    """Natural logarithm of the wealth after each round; before the first it is 0."""

    alpha: float
    """The chance of a false alarm, for each concept alone, and the false discovery rate for all."""

    rejected: Int[Tensor, " concept"]
    """The round, counted from 1, in which the wealth first reached 1 / alpha; 0 where it never did."""

    discovered: Int[Tensor, " concept"]
    """The round in which the concept joined the discoveries, among which a share of alpha at most is expected to be
    false, however the concepts depend on each other; 0 where it never did."""

    @property
    def ranking(self) -> Int[Tensor, " concept"]:
        """The concepts, the one rejected first before all; those never rejected by their last wealth."""
        never = self.rejected == 0
        by_wealth = self.log_wealth[-1].argsort(descending=True, stable=True)
        late = torch.where(never, len(self.log_wealth) + 1, self.rejected)[by_wealth]
        return by_wealth[late.argsort(stable=True)]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per concept, in the order of the ranking; the wealth is that after the last round."""
        order = self.ranking
        columns = {
            "rejected": self.rejected,
            "discovered": self.discovered,
            "log_wealth": self.log_wealth[-1],
        }
        return pd.DataFrame({"concept": order.numpy(), **{k: v[order].numpy() for k, v in columns.items()}})


def bet_globally(
    outputs: Float[Tensor, "row d_out"], scores: Float[Tensor, "row concept"], *, alpha: float = 0.05
) -> Bets:
    """Bet that outputs depend on each concept; a round takes two rows.

    Everything that goes along with a cause is important in this sense; ``bet_conditionally`` asks for more.
    """
    _check(outputs, scores, alpha, least=4)
    y, z = (table.detach().cpu().double() for table in (outputs, scores))
    sharp_y, sharp_z = _sharpness(_variances(y).sum(-1)), _sharpness(_variances(z))

    def witnesses() -> Iterator[Tensor]:
        for now in range(0, len(y) - 1, 2):
            near_y = _kernel((y[now : now + 2, None] - y[:now]).square().sum(-1), sharp_y[now])  # (past)
            near_z = _kernel((z[now : now + 2, None] - z[:now]).square(), sharp_z[now])  # (past, concept)
            # The witness is of the joint law minus the product of its margins. Over two rows minus their exchange
            # it is the covariance, over the past, of the differences of the kernels.
            yield (near_y - near_y.mean()) @ near_z / max(now, 1)

    return _play(witnesses(), alpha)


def bet_conditionally(
    outputs: Float[Tensor, "row d_out"], scores: Float[Tensor, "row concept"], sampler: Sampler, *, alpha: float = 0.05
) -> Bets:
    """Bet that outputs depend on each concept beyond all other concepts; a round takes one row.

    Args:
        outputs: What the concepts may matter for, such as logits.
        scores: Every concept that is to be held fixed is a column.
        sampler: Draws a concept given the others, once for each row. The promise is as good as its draws.
        alpha: The chance of a false alarm.
    """
    _check(outputs, scores, alpha, least=2)
    draws = [sampler(scores, i) for i in range(scores.shape[1])]
    for i, draw in enumerate(draws):
        if draw.shape != scores[:, i].shape or not bool(draw.isfinite().all()):
            raise ValueError(
                f"The sampler gives one finite score for each row, [{len(scores)}]; for concept {i} it gave "
                f"{list(draw.shape)}{'' if draw.isfinite().all() else ' with NaN or infinity'}."
            )
    y, z, z_drawn = (table.detach().cpu().double() for table in (outputs, scores, torch.stack(draws, dim=1)))
    spreads = _variances(z)
    sharp_y, sharp_z = _sharpness(_variances(y).sum(-1)), _sharpness(spreads)
    sharp_rest = _sharpness(_without(spreads))
    both = torch.stack([z_drawn, z], dim=1)[:, :, None]

    def witnesses() -> Iterator[Tensor]:
        for now in range(len(y)):
            rest = (-_without((z[:now] - z[now]).square()) * sharp_rest[now]).exp()
            near_y = (-(y[:now] - y[now]).square().sum(-1, keepdim=True) * sharp_y[now]).exp()
            against_true, against_drawn = (
                _kernel((both[now] - past[:now]).square(), sharp_z[now]) for past in (z, z_drawn)
            )
            yield (near_y * rest * (against_true - against_drawn)).sum(0) / max(now, 1)

    return _play(witnesses(), alpha)


def bet_locally(
    known: Float[Tensor, "row concept d_out"], unknown: Float[Tensor, "row concept d_out"], *, alpha: float = 0.05
) -> Bets:
    """Bet that knowing a concept of one input changes the law of the output; a round takes one row.

    Args:
        known: Outputs for inputs drawn with some concepts, and the one in question, fixed at their values.
        unknown: Outputs for inputs drawn with the same concepts fixed, but not the one in question.
        alpha: The chance of a false alarm.
    """
    if known.shape != unknown.shape:
        raise ValueError(
            f"bet_locally compares as many draws with a concept as without; got {tuple(known.shape)} and "
            f"{tuple(unknown.shape)}."
        )
    _check(known.flatten(1), unknown.flatten(1), alpha, least=2)
    a, b = (table.detach().cpu().double() for table in (known, unknown))
    sharp = _sharpness(_variances(a, b).sum(-1))
    both = torch.stack([b, a], dim=1)[:, :, None]

    def witnesses() -> Iterator[Tensor]:
        for now in range(len(a)):
            against_a, against_b = (_kernel((both[now] - past[:now]).square().sum(-1), sharp[now]) for past in (a, b))
            yield (against_a - against_b).sum(0) / max(now, 1)

    return _play(witnesses(), alpha)


def _check(outputs: Tensor, scores: Tensor, alpha: float, *, least: int) -> None:
    if len(outputs) != len(scores) or len(scores) < least or not scores.shape[1] or not outputs.shape[1]:
        raise ValueError(
            f"Bets take outputs and at least one score for each of {least} or more rows; got outputs "
            f"{tuple(outputs.shape)} and scores {tuple(scores.shape)}."
        )
    if not bool(outputs.isfinite().all() & scores.isfinite().all()):
        raise ValueError("Outputs and scores must be finite, but there is NaN or infinity among them.")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha, the chance of a false alarm, lies between 0 and 1; got {alpha}.")


def _variances(*tables: Tensor) -> Tensor:
    """Return the variance of all rows before each row, of several tables together; 0 at the first."""
    # About the first row, so that what is constant has the variance 0 exactly.
    offsets = torch.stack([table - tables[0][0] for table in tables])
    return (_so_far(offsets.square().mean(0)) - _so_far(offsets.mean(0)).square()).clamp_min(0)


def _so_far(table: Tensor) -> Tensor:
    """Return the mean of all rows before each row; 0 at the first."""
    count = torch.arange(1, len(table)).reshape(-1, *[1] * (table.ndim - 1))
    return torch.cat([torch.zeros_like(table[:1]), table.cumsum(0)[:-1] / count])


def _sharpness(variances: Tensor) -> Tensor:
    """Return 1 / (2 variance), and 0 where the past does not vary: there, all rows are equally near."""
    return torch.where(variances > 1e-300, 0.5 / variances, 0.0)


def _kernel(square: Tensor, sharpness: Tensor) -> Tensor:
    """Return the Gaussian kernel of the second row less that of the first, from their squared distances."""
    first, second = (-square * sharpness).exp()
    return second - first


def _without(parts: Tensor) -> Tensor:
    """Return the sum over all concepts but one, for each; rounding must not make it negative."""
    return (parts.sum(-1, keepdim=True) - parts).clamp_min(0)


def _play(witnesses: Iterator[Tensor], alpha: float) -> Bets:
    """Return the bets on payoffs tanh(witness / its root mean square so far)."""
    found = torch.stack(list(witnesses))
    scales = _so_far(found.square()).sqrt()
    payoffs = torch.where(scales > 0, found / scales, 0.0).tanh()
    bet, curvature = torch.zeros_like(found[0]), torch.ones_like(found[0])
    gains = []
    for payoff in payoffs:
        gain = 1 + bet * payoff
        gains.append(gain)
        slope = payoff / gain
        curvature = curvature + slope.square()
        bet = (bet + NEWTON * slope / curvature).clamp(0, 0.5)
    paths = torch.stack(gains).log().cumsum(0)
    reached = paths >= -math.log(alpha)
    rejected = torch.where(reached.any(0), reached.int().argmax(0) + 1, 0)
    return Bets(paths, alpha, rejected, _discoveries(paths, alpha))


def _discoveries(log_wealth: Tensor, alpha: float) -> Tensor:
    """Return when each of n concepts is discovered: together with k - 1 others once its wealth is n / (alpha k).

    A discovery keeps the wealth it had. Stopped wealth is an e-value, and of e-values a set of k that all reach
    n / (alpha k) has a false discovery rate of at most alpha (Wang and Ramdas 2022).
    """
    n = log_wealth.shape[1]
    when = torch.zeros(n, dtype=torch.long)
    thresholds = math.log(n / alpha) - torch.arange(1, n + 1, dtype=torch.float64).log()
    for rounds, wealth in enumerate(log_wealth, 1):
        largest = torch.where(when > 0, math.inf, wealth).sort(descending=True).values
        enough = (largest >= thresholds).nonzero()
        if len(enough):
            new = (wealth >= thresholds[int(enough[-1])]) & (when == 0)
            when[new] = rounds
    return when

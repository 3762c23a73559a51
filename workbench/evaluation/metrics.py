"""The metrics of a scorecard: what each says, and what is scored without knowing anything."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One kind of number on a scorecard."""

    name: str
    """By which it is asked for."""

    version: int
    """Rises whenever the same dictionary would get another number."""

    title: str
    """By which it is shown."""

    better: Literal["lower", "higher", "neither"]
    """Which way is better, if either is."""

    best: float
    """The best there can be; NaN where nobody knows."""

    says: str
    """What is measured."""

    null: str
    """What its null value is that of."""

    @property
    def id(self) -> str:
        """Name and version, as they belong beside every number of it: "fvu@1"."""
        return f"{self.name}@{self.version}"


NAN = float("nan")
RANDOM = "as many random directions, as many of them active"

METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            *("fvu", 1, "variance unexplained", "lower", 0.0),
            "Squared error over squared distance from the mean, both summed over all rows judged.",
            "the mean in the place of every activation: exactly 1",
        ),
        Metric(
            *("l0", 1, "features active", "neither", NAN),
            "Mean number of features that are not zero on a row: the price of everything else.",
            "the activation itself, all its coordinates",
        ),
        Metric(
            *("mdl", 1, "bits per activation", "lower", NAN),
            "Description length of an activation up to 5 % of the variance: rounded codes, then what they leave.",
            "the activations without a dictionary, sent along their principal components",
        ),
        Metric(
            *("dead", 1, "dead features", "lower", 0.0),
            "Share of features that are active on no row judged; on few rows, rare ones are among them.",
            RANDOM,
        ),
        Metric(
            *("dense", 1, "dense features", "lower", 0.0),
            "Share of features that are active on a tenth of the rows or more.",
            RANDOM,
        ),
        Metric(
            *("ce", 1, "cross-entropy added", "lower", 0.0),
            "What the loss on the next token rises by, in nats, with reconstructions in the place of activations.",
            "the mean activation in that place",
        ),
        Metric(
            *("kl", 1, "KL when spliced in", "lower", 0.0),
            "KL(model ‖ model with reconstructions) of the next token, in nats.",
            "the mean activation in that place",
        ),
        Metric(
            *("recovered", 1, "loss recovered", "higher", 1.0),
            "Share of the loss by which the mean activation is worse than the model that reconstructions win back.",
            "the mean activation: exactly 0",
        ),
        Metric(
            *("recovered_zero", 1, "loss recovered, of zero", "higher", 1.0),
            "The same measured from zero in the place of activations, as is often reported.",
            "the mean activation, which knows nothing of the text",
        ),
        Metric(
            *("cosine", 1, "nearest decoder row", "lower", NAN),
            "Mean over features of the cosine with the most similar other direction.",
            RANDOM,
        ),
        *(
            Metric(
                *(f"probe_{k}", 1, f"labels told by {k}", "higher", 1.0),
                f"Mean over labels of the held-out F1 of a logistic probe that reads {k} feature{'s' * (k > 1)}, "
                "chosen by difference of means; the best is the Bayes ceiling, where it is known.",
                "the same with labels dealt out anew",
            )
            for k in (1, 2, 5)
        ),
        Metric(
            *("splitting", 1, "features per label", "lower", 1.0),
            "Mean over labels of how many features stand for it: each adds 0.03 to the F1 of their union.",
            RANDOM,
        ),
        Metric(
            *("absorption", 1, "absorbed kinds", "lower", 0.0),
            "Share of a kind's rows on which no feature of its parent is active and another carries the parent's "
            "direction, mean over kinds. What has no feature of the parent absorbs little: read it beside the F1.",
            RANDOM,
        ),
    )
}

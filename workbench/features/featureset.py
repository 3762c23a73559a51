"""What every feature of a dictionary does: a table of all, and each one by its number, also from a file."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.dictionaries import Dictionary, files
from workbench.dictionaries.inputs import named
from workbench.features.feature import DENSE, Feature
from workbench.features.search import Searches
from workbench.models import Site

NAME = "features"


class FeatureSet(Searches):
    """The features of a dictionary on a store; ``features[i]`` is one of them, ``features.table`` has a line for each.

    Made by ``describe`` and read by ``load_features``, which leaves on disk what nobody asks for.
    """

    def __init__(
        self,
        columns: Mapping[str, Any],
        *,
        rows: int,
        places: list[int],
        labels: Mapping[str, tuple[str, ...]],
        words: list[str],
        provenance: dict[str, Any],
    ) -> None:
        self.columns = columns
        self.rows = rows
        """How many rows of activations were looked at."""
        self.places = places
        """Rows by position: 0, 1 to 2, 3 to 6, and so on."""
        self.labels = labels
        self.words = words
        """The text of each token."""
        self.provenance = provenance
        """Model, sites, dictionary and seed."""
        self.dictionary: Any = None
        self.store: ActivationStore | None = None

    def attached(self, dictionary: Any = None, store: ActivationStore | None = None) -> "FeatureSet":
        """Take the dictionary and the store that this is about, which searches and exact effects run."""
        if dictionary is not None and len(dictionary.W_dec) != len(self):
            raise ValueError(f"These are {len(self)} features, and this dictionary has {len(dictionary.W_dec)}.")
        reads = getattr(dictionary, "sites_in", ())
        if reads and reads != self.sites_in:
            raise ValueError(
                f"These features were read at {named(self.sites_in)}, and this dictionary reads {named(reads)}; give "
                "theirs."
            )
        if store is not None and store.fingerprint != self.provenance["model"]:
            raise ValueError("This store comes from another model than these features; harvest from theirs.")
        self.dictionary = dictionary if dictionary is not None else self.dictionary
        self.store = store if store is not None else self.store
        return self

    @property
    def sources(self) -> tuple[Any, ActivationStore]:
        """The dictionary and the store, where both are there."""
        if self.dictionary is None or self.store is None:
            raise ValueError(
                "This runs the dictionary on rows of the store; give load_features dictionary= and store=."
            )
        return self.dictionary, self.store

    @property
    def sites_in(self) -> tuple[Site, ...]:
        """What the dictionary reads."""
        return tuple(map(Site.parse, self.provenance["sites_in"]))

    def __len__(self) -> int:
        return len(self.column("count"))

    def __getitem__(self, feature: int) -> "Feature":
        n = len(self)
        if not isinstance(feature, Integral) or not -n <= feature < n:
            raise IndexError(f"Features are numbered 0 to {n - 1}, got {feature!r}.")
        return Feature(self, int(feature) % n)

    def __iter__(self) -> Iterator["Feature"]:
        return (Feature(self, i) for i in range(len(self)))

    def __repr__(self) -> str:
        dead, dense = sum(self.table["dead"]), sum(self.table["dense"])
        at = ", ".join(self.provenance["sites_in"])
        return f"FeatureSet({len(self)} features at {at} on {self.rows:,} rows; {dead} dead, {dense} dense)"

    def column(self, name: str) -> Tensor:
        """Return a whole column, [n_features, ...]."""
        return self.columns[name][:]

    def of(self, name: str, feature: int) -> Tensor:
        """Return a column's line of one feature; from a file, only that is read."""
        return self.columns[name][feature : feature + 1][0]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One line for each feature: how often and how strongly it is active, and what it stands for."""
        count = self.column("count")
        first = self.column("tokens")[:, 0].tolist()
        table = pd.DataFrame(
            {
                "density": (count / self.rows).tolist(),
                "mean": self.column("mean").tolist(),
                "max": self.column("max").tolist(),
                "token": [self.words[token] if n else "" for token, n in zip(first, count.tolist(), strict=True)],
            }
        )
        if "label" in self.columns:
            table["label"] = [self.value_name(int(value)) for value in self.column("label")[:, 0]]
            for name in ("f1", "precision", "recall", "mcc"):
                table[name] = self.column(f"label_{name}").tolist()
        if "loss_effect" in self.columns:
            table["loss_effect"] = self.column("loss_effect").tolist()
        table["dead"], table["dense"] = table["density"] == 0, table["density"] > DENSE
        table.index.name = "feature"
        return table

    def to_frame(self) -> pd.DataFrame:
        """Return the table."""
        return self.table

    def value_name(self, value: int) -> str:
        """Return what a value is called, numbered through all labels."""
        for name, values in self.labels.items():
            if value < len(values):
                return f"{name}={values[value]}"
            value -= len(values)
        raise IndexError(f"There is no value {value} beyond the last label.")

    def save(self, directory: str | Path) -> None:
        """Write this into ``directory``, replacing an earlier set at once."""
        told = {
            "rows": self.rows,
            "places": self.places,
            "labels": dict(self.labels),
            "words": self.words,
            "provenance": self.provenance,
        }
        files.write(Path(directory), NAME, told, {name: self.column(name) for name in self.columns})


def load_features(
    directory: str | Path, *, dictionary: Dictionary | None = None, store: ActivationStore | None = None
) -> FeatureSet:
    """Return what ``FeatureSet.save`` wrote; columns are read from the file when they are asked for.

    Args:
        directory: Where it was saved.
        dictionary: The dictionary described, which searches by prompt and exact effects need.
        store: The store it was described on, which exact effects need.
    """
    directory = Path(directory)
    if not (directory / f"{NAME}.json").is_file():
        raise ValueError(f"'{directory}' holds no features, for it has no {NAME}.json; FeatureSet.save writes them.")
    manifest, weights = files.manifest(directory, NAME)
    try:
        file = ExitStack().enter_context(safe_open(weights, framework="pt"))
        return FeatureSet(
            {name: file.get_slice(name) for name in file.keys()},
            rows=manifest["rows"],
            places=manifest["places"],
            labels={name: tuple(values) for name, values in manifest["labels"].items()},
            words=manifest["words"],
            provenance=manifest["provenance"],
        ).attached(dictionary, store)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{directory / NAME}.json' does not describe features ({error!r}); save them again."
        ) from None

"""What describing features costs beside reading and encoding the same rows: ``python tests/bench/bench_features.py``.

Limit: twice. Both in turn on the shipped dictionary, in CPU time of one thread; medians, and the range of the ratios.
"""

import argparse
import statistics
import time

import torch

from workbench.activations import ActivationStore
from workbench.dictionaries import load_dictionary
from workbench.features import describe
from workbench.features.describe import CHUNK, chunks
from workbench.language import Language
from workbench.models import load_model


def seconds(work) -> float:
    """Return the CPU time that ``work`` takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Time both in turn and print the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, dictionary = load_model("tiny"), load_dictionary("tiny")
    texts = Language(0).documents(given.documents, split="train", seed=0)
    store = ActivationStore.collect(model, texts, dictionary.sites_in)
    (site,) = dictionary.sites_in

    def encode() -> None:
        for rows in chunks(store, dictionary.sites_in, CHUNK):
            dictionary.encode(rows.acts[site])

    encode()
    pairs = [(seconds(encode), seconds(lambda: describe(dictionary, store))) for _ in range(given.rounds)]
    alone, described = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = [second / first for first, second in pairs]
    print(f"{len(store):,} rows, {dictionary.n_features} features, {len(store.names)} labels")
    print(f"reading and encoding {alone:.2f} s, describing {described:.2f} s")
    print(f"{described / alone:.2f} × (rounds {min(ratios):.2f} to {max(ratios):.2f}; limit 2)")


if __name__ == "__main__":
    main()

"""How fast the language is, on one core: ``python tests/bench/bench_language.py``.

Prints generated tokens per second (labels included) and oracle positions per second, each against what the
language promises: 200,000 and 500. The oracle is measured from a cold start, its memory of executions empty.
"""

import time

import torch

from workbench.language import Language

torch.set_num_threads(1)


def main() -> None:
    language = Language(0)
    for split in ("train", "test", "all"):
        language.documents(100, split=split)  # the grids are divided once
    print("split   generated tokens/s   (ratio to 200,000)   oracle positions/s   (ratio to 500)")
    for split in ("train", "test", "all"):
        started = time.perf_counter()
        documents = language.documents(20_000, split=split, seed=1)
        generation = int(documents.lengths.sum()) / (time.perf_counter() - started)
        fresh = Language(0)
        fresh.documents(100, split=split)
        started = time.perf_counter()
        positions = 0
        for i in range(300):
            length = int(documents.lengths[i])
            fresh.next_token(documents.tokens[i, :length], split=split)
            positions += length
        oracle = positions / (time.perf_counter() - started)
        print(f"{split:6} {generation:15,.0f} {generation / 2e5:18.2f} x {oracle:20,.0f} {oracle / 500:15.1f} x")


if __name__ == "__main__":
    main()

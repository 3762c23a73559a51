"""What it costs to train twelve dictionaries together, beside their own steps and one forward pass.

    python tests/bench/bench_many.py [--steps 20] [--threads 1] [--tokens 2048] [--model tiny] [--device cpu]

The shipped model runs over documents of its language; its activations at six sites feed two widths each. Together:
one stream, one forward pass a step. Alone: the same step of each dictionary on the same activations, already
recorded, and the forward pass for itself. All are taken in turn, and ratios are of a turn. A step of ours is a
forward pass of the language model, reading batches, and all that the loop does.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from workbench.dictionaries import BatchTopK, Dictionary, TopK
from workbench.language import Language
from workbench.models import Site, load_model, record
from workbench.training import TrainConfig, train, train_many
from workbench.training.bar import memory_in_use


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"steps": 20, "threads": 1, "tokens": 2048}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    device = torch.device(a.device)
    model = load_model(a.model, device=a.device)
    depth = model.cfg.n_layers
    sites = [Site(layer) for layer in range(0, depth, max(1, depth // 3))][:3]
    sites += [Site(site.layer, "mlp_out") for site in sites]
    documents = Language(0).documents(a.tokens // 16, split="train", seed=0)
    mask = torch.arange(documents.tokens.shape[1]) < documents.lengths[:, None]
    mask[:, 0] = False

    def forward() -> dict[Site, Tensor]:
        acts = record(model, documents.tokens.to(device), sites)
        return {site: rows[mask.to(device)][: a.tokens] for site, rows in acts.items()}

    first = forward()

    def several() -> dict[str, Dictionary]:
        make = {"TopK": TopK, "BatchTopK": BatchTopK}
        return {
            f"{site} {kind} {factor}": make[kind](
                len(first[site][0]), factor * len(first[site][0]), k=16, sites_in=site
            )
            for site in sites
            for kind, factor in (("TopK", 8), ("BatchTopK", 16))
        }

    def stream() -> Iterator[dict[Site, Tensor]]:
        while True:
            yield forward()

    def recorded() -> Iterator[dict[Site, Tensor]]:
        while True:
            yield first

    def timed(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    config = TrainConfig(steps=a.steps + 3)
    dictionaries = {name: dictionary.to(device) for name, dictionary in several().items()}
    together = train_many(dictionaries, stream(), config)
    alone = [train(dictionary.to(device), recorded(), config) for dictionary in several().values()]
    turns = []
    for _ in range(a.steps + 3):
        steps = sum(timed(lambda training=training: next(training)) for training in alone)
        turns.append((timed(lambda: next(together)), steps, timed(forward)))
    all_, own, passes = (statistics.median(times) for times in zip(*turns[3:], strict=True))
    ratios = sorted(many / (steps + one) for many, steps, one in turns[3:])
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    print(f"{len(dictionaries)} dictionaries of {a.model}, {len(first[sites[0]])} activations a step, {a.device}")
    print(f"together {all_ * 1e3:.1f} ms a step; own steps {own * 1e3:.1f} ms, one forward pass {passes * 1e3:.1f} ms")
    print(f"ratio {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f}, middle half); at most 1.15 is promised")
    print(f"memory {memory_in_use(device) / 2**20:.0f} MiB, both sides and the model included")


if __name__ == "__main__":
    main()

"""What harvesting costs beside the forward it needs, and whether its memory grows with the corpus.

    python tests/bench/bench_activations.py [--model tiny] [--documents 1000] [--rounds 5] [--threads 1]

The plain side runs the model over the very batches that the harvest ran, up to the same layer, and keeps nothing.
The two take turns; the ratio is the median of the paired ratios. A second harvest writes to disk. The memory of a
harvest to disk is the peak of a process of its own that does nothing else, at three sizes of corpus. Below each
figure stands what is promised, and whether it is kept.
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.models import Site, TransformerBridge, load_model

OVERHEAD = 1.15
"""What a harvest may take, of the time of the plain forward."""

SHARE = 0.1
"""How much of what a larger corpus adds on disk may show in the peak of the memory: noise, not growth."""


def verdict(kept: bool, promise: str) -> str:
    return f"{'pass' if kept else 'FAIL'}: {promise}"


def documents(model: TransformerBridge, count: int) -> Iterator[Tensor]:
    """Yield random documents one by one, so that the corpus itself takes no memory."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        length = int(torch.randint(8, 128, (), generator=generator))
        yield torch.randint(3, model.cfg.d_vocab, (length,), generator=generator)


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def overhead(model: TransformerBridge, site: Site, count: int, rounds: int) -> None:
    """Print the ratio of a harvest to the forwards it needs."""
    source = list(documents(model, count))
    batches: list[Tensor] = []
    handle = model.original_model.register_forward_pre_hook(lambda module, args: batches.append(args[0]))
    rows = len(ActivationStore.collect(model, source, [site]))
    handle.remove()
    batches = [batch for batch in batches if batch.numel() > 1]

    def plain() -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch, stop_at_layer=site.layer + 1, use_cache=False)

    root, numbers = tempfile.TemporaryDirectory(), itertools.count()

    def to_disk() -> None:
        ActivationStore.collect(model, source, [site], directory=Path(root.name) / str(next(numbers)))

    sides = {"plain": plain, "in memory": lambda: ActivationStore.collect(model, source, [site]), "on disk": to_disk}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(seconds(side))
    root.cleanup()
    for name in ("in memory", "on disk"):
        ratio = statistics.median(a / b for a, b in zip(times[name], times["plain"], strict=True))
        speed = rows / statistics.median(times[name])
        print(f"{name}: {ratio:.3f} of the plain forward to {site} ({speed:,.0f} rows/s, {rows} rows)")
        print(f"  {verdict(ratio <= OVERHEAD, f'at most {OVERHEAD}')}")


def memory(arguments: argparse.Namespace) -> None:
    """Print the peak memory of a harvest to disk, and of iterating it, at sizes past the buffers it fills first."""
    found = []
    for factor in (8, 16, 32):
        count = str(factor * arguments.documents)
        command = [sys.executable, __file__, "--model", arguments.model, "--documents", count, "--peak"]
        told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        print(
            f"{told['rows']} rows, {told['disk']:.0f} MB on disk: peak grew by {told['harvest']:.0f} MB while "
            f"harvesting, by {told['batches']:.0f} MB with an epoch of batches"
        )
        found.append(told)
    added = found[-1]["disk"] - found[0]["disk"]
    for what in ("harvest", "batches"):
        grown = found[-1][what] - found[0][what]
        promise = f"at most {SHARE:.0%} of {added:.0f} MB more on disk"
        print(f"{what}: {grown:+.0f} MB from the smallest to the largest\n  {verdict(grown <= SHARE * added, promise)}")


def peak(model: TransformerBridge, site: Site, count: int) -> None:
    """Harvest to disk, iterate, and print what it took beyond a loaded model, as JSON."""

    def resident() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    ActivationStore.collect(model, documents(model, 500), [site])
    before = resident()
    with tempfile.TemporaryDirectory() as directory:
        store = ActivationStore.collect(model, documents(model, count), [site], directory=directory, shard_rows=16_384)
        harvested = resident()
        batches = store.batches([site], 1024, seed=0, buffer_rows=16_384)
        for _ in range(len(store) // 1024):
            next(batches)
        size = sum(file.stat().st_size for file in Path(directory).iterdir()) / 2**20
    told = {"rows": len(store), "disk": size, "harvest": harvested - before, "batches": resident() - before}
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model, device="cpu")
    site = Site(model.cfg.n_layers // 2)
    if arguments.peak:
        peak(model, site, arguments.documents)
    else:
        overhead(model, site, arguments.documents, arguments.rounds)
        memory(arguments)


if __name__ == "__main__":
    main()

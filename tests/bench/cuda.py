"""The same on a GPU as on a CPU? Every architecture's loss, gradients and a short run, and how long a step takes.

    python tests/bench/cuda.py [--d 1024] [--features 16384] [--k 32] [--batch 4096]

Without a CUDA device it says so and ends with code 2; where something differs, with code 1.
"""

import sys

if __name__ == "cuda":  # torch asks for a package of this name, and Python looks beside the script that runs first
    raise ModuleNotFoundError("'cuda' here is a benchmark and no package.")

import argparse
import time
from collections.abc import Iterator
from copy import deepcopy
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.dictionaries import (
    BatchTopK,
    Dictionary,
    FeatureChoice,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    ReLU,
    TopK,
    fidelity,
)
from workbench.training import TrainConfig, train
from workbench.training.config import Precision
from workbench.training.learner import COUNT_EVERY, Learner

KINDS = {
    "TopK": (TopK, {"k": 4}),
    "ReLU": (ReLU, {"l1": 0.3}),
    "Gated": (Gated, {"l1": 0.6}),
    "JumpReLU": (JumpReLU, {"l0": 4}),
    "BatchTopK": (BatchTopK, {"k": 4}),
    "FeatureChoice": (FeatureChoice, {"k": 4, "zipf": 0.5}),
    "Matryoshka": (Matryoshka, {"k": 4}),
    "MatchingPursuit": (MatchingPursuit, {"k": 4}),
}


def mixtures(n: int, d: int = 32, true: int = 64, active: float = 3, seed: int = 0) -> Iterator[Tensor]:
    """Endless batches of sparse mixtures of known directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(true, d, generator=generator), dim=-1)
    while True:
        strengths = 0.5 + torch.rand(n, true, generator=generator)
        yield (strengths * (torch.rand(n, true, generator=generator) < active / true)) @ directions + 1


def gradients(dictionary: Dictionary, x: Tensor) -> tuple[float, dict[str, Tensor]]:
    """Return the loss and its gradients, some features dead."""
    dead = torch.arange(0, dictionary.n_features, 3, device=x.device)
    loss = dictionary.loss(x, x, dead=dead)
    loss.total.backward()
    return loss.total.item(), {name: p.grad.cpu() for name, p in dictionary.named_parameters() if p.grad is not None}


def compared(name: str) -> bool:
    """Print how far loss, gradients and a short run on the GPU are from those on the CPU; whether that is all right."""
    kind, options = KINDS[name]
    # In float64, so that only mistakes show and not the order of sums.
    here = kind(32, 128, **options).double()
    here.initialise(next(mixtures(1024)).double())
    there = deepcopy(here).cuda()
    x = next(mixtures(512, seed=1)).double()
    (loss, ours), (loss_there, theirs) = gradients(here, x), gradients(there, x.cuda())
    off = max(((ours[key] - theirs[key]).abs().max() / ours[key].abs().max()).item() for key in ours)
    off = max(off, abs(loss - loss_there) / abs(loss))

    left = {}
    runs: list[tuple[str, Precision]] = [
        ("cpu", "float32"),
        *(("cuda", precision) for precision in get_args(Precision)),
    ]
    for where, precision in runs:
        dictionary = kind(32, 128, **options).to(where)
        config = TrainConfig(steps=300, lr=1e-2, dead_tokens=20_000, precision=precision)
        list(train(dictionary, mixtures(512), config))
        left[f"{where} {precision}"] = fidelity(dictionary, next(mixtures(4096, seed=0))).fvu
    worst = max(left.values()) / left["cpu float32"]
    fine = off < 1e-6 and worst < 1.1
    told = ", ".join(f"{where} {fvu:.4f}" for where, fvu in left.items())
    print(f"{'ok ' if fine else 'BAD'} {name:16} loss and gradients differ by {off:.1e}; FVU after 300 steps: {told}")
    return fine


def speed(name: str, precision: Precision, a: argparse.Namespace) -> None:
    """Print how long a step takes, that it waits for nothing, and the memory at its highest."""
    kind, options = KINDS[name]
    options = {"k": a.k} if "k" in options else {"l0": a.k} if "l0" in options else {}
    dictionary = kind(a.d, a.features, **options).cuda()
    x = torch.randn(a.batch, a.d, device="cuda")
    learner = Learner(name, dictionary, TrainConfig(steps=10_000, precision=precision))
    for step in range(COUNT_EVERY + 1):
        learner.learn(x, step)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_sync_debug_mode("error")  # whatever waits for the device raises
    began = time.perf_counter()
    try:
        for step in range(1, COUNT_EVERY):
            learner.learn(x, step)
        waits = "asks nothing of the device"
    except RuntimeError as error:
        waits = f"WAITS FOR THE DEVICE: {str(error).splitlines()[0]}"
    torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / (COUNT_EVERY - 1)
    peak = torch.cuda.max_memory_allocated() / 2**30
    rate = f"{seconds * 1e3:8.2f} ms {a.batch / seconds:12,.0f} tokens/s"
    print(f"    {name:16} {precision:8} {rate} {peak:6.1f} GiB  {waits}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"d": 1024, "features": 16384, "k": 32, "batch": 4096}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing was compared; run this where nvidia-smi lists one.")
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    fine = [compared(name) for name in KINDS]
    print(f"a step at d {a.d}, features {a.features}, k {a.k}, batch {a.batch}:")
    for name in KINDS:
        for precision in get_args(Precision):
            speed(name, precision, a)
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())

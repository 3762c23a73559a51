"""TopK training beside other trainers, in turn on one machine: tokens per CPU-second, and what they reach.

    python tests/bench/bench_peers.py --peer sparsify=PYTHON --peer saelens=PYTHON --peer dictionary_learning=PYTHON
    python tests/bench/bench_peers.py --tune --peer …

PYTHON is the interpreter of an environment that has the peer (sae-lens 6.54, eai-sparsify 1.3 or
dictionary-learning 0.1) beside the same torch. Each side is a process of its own that trains 4096 features of 256
dimensions, k 32, batches of 2048 in float32, on the same rows in the same order, with the same warm-up and decay and
the learning rate that ``--tune`` found for it on other rows. Sides take ``--steps`` steps each in turn, for
``--rounds`` rounds. A ratio is of one round; its interval is that in which the median lies with 95 %, from the order
of the rounds alone. "floor" is ``torch.mm`` with an encoder and ``torch.topk``, and nothing else.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from math import comb
from pathlib import Path

import torch
from torch import Tensor

D, FEATURES, K, BATCH = 256, 4096, 32, 2048
WARM = 3  # steps that warm up caches and memory, before the clock runs

LR = {"workbench": 1.6e-3, "sparsify": 1.6e-3, "saelens": 1.6e-3, "dictionary_learning": 1.6e-3, "floor": 0.0}
"""What ``--tune`` found."""
GRID = (8e-4, 1.6e-3, 3.2e-3, 6.4e-3)

Step = Callable[[Tensor], object]
Rebuild = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From activations to their reconstruction, and which features were active on any."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"steps": 15, "rounds": 11, "threads": 1, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--tune", action="store_true", help="find a learning rate for each side instead")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--lr", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.side:
        return serve(a)
    pythons = {"workbench": sys.executable, "floor": sys.executable} | dict(peer.split("=", 1) for peer in a.peer)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.pt"
        torch.save(draw(a.seed), rows)
        (tune if a.tune else compare)(a, pythons, rows)


def draw(seed: int) -> dict[str, Tensor]:
    """Return rows to train on, to tune on, and to measure on: a few of 2048 features each, around a mean, and noise."""
    from workbench.language.planted import World, plain

    world = World({"features": plain(8 * D, active=(8, 24, 40), zipf=0.5)}, d=D, seed=seed, offset=3.0)
    sizes = {"train": 96 * BATCH, "tune": 8 * BATCH, "held_out": 16 * BATCH}
    rows = {}
    for i, (name, size) in enumerate(sizes.items()):
        parts = [world.rows(BATCH, seed=(i, j)).acts for j in range(size // BATCH)]
        rows[name] = torch.cat(parts) + 0.05 * torch.randn(size, D, generator=torch.Generator().manual_seed(i))
    return rows


# --- one side, in its own process ----------------------------------------------------------------------------


def serve(a: argparse.Namespace) -> None:
    """Take as many steps as each line of input says and print the seconds; at its end print what was reached."""
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    rows = torch.load(a.rows, weights_only=True)
    steps = WARM + a.steps * a.rounds
    step, rebuild = SIDES[a.side](rows["train"][:BATCH], LR[a.side] if a.lr is None else a.lr, steps)
    batches = rows["train"].split(BATCH)
    stream = (batches[i % len(batches)] for i in count())
    for _ in range(WARM):
        step(next(stream))
    tell(ready=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            step(next(stream))
        tell(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
    tell(**{name: measure(rebuild, rows[name]) for name in ("tune", "held_out")})


def tell(**what: object) -> None:
    print("SIDE " + json.dumps(what), flush=True)


@torch.no_grad()
def measure(rebuild: Rebuild, x: Tensor) -> dict[str, float]:
    """Return the fraction of variance unexplained, and the share of features that are never active."""
    error, fired = 0.0, torch.zeros(FEATURES, dtype=torch.bool)
    for part in x.split(BATCH):
        y, active = rebuild(part)
        error += float((part - y).double().square().sum())
        fired |= active
    return {"fvu": error / float((x - x.mean(0)).double().square().sum()), "dead": float((~fired).float().mean())}


def schedule(step: int, steps: int) -> float:
    """Return the share of the peak rate: 5 % warm-up and a linear decay over the last 20 %, ours for all."""
    return min(1.0, (step + 1) / (0.05 * steps), (steps - step) / (0.2 * steps))


def workbench(sample: Tensor, lr: float, steps: int) -> tuple[Step, Rebuild]:
    from workbench.dictionaries import TopK
    from workbench.training import TrainConfig, train

    pending: list[Tensor] = []
    dictionary = TopK(D, FEATURES, k=K)
    training = train(dictionary, (pending.pop() for _ in count()), TrainConfig(steps=steps, lr=lr))

    def step(x: Tensor) -> None:
        pending.append(x)
        next(training)

    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = dictionary.encode(x)
        return dictionary.decode(codes), codes.fired

    return step, rebuild


def sparsify(sample: Tensor, lr: float, steps: int) -> tuple[Step, Rebuild]:
    """A step is what its Trainer does around a model's hook: statistics, norms, gradient projection, Adam."""
    from sparsify import SparseCoder, SparseCoderConfig  # pyright: ignore[reportMissingImports]

    sae = SparseCoder(D, SparseCoderConfig(num_latents=FEATURES, k=K), device="cpu", dtype=torch.float32)
    sae.b_dec.data = sample.mean(0).clone()
    adam = torch.optim.Adam(sae.parameters(), lr=lr)
    rate = torch.optim.lr_scheduler.LambdaLR(adam, lambda i: schedule(i, steps))
    silent = torch.zeros(FEATURES, dtype=torch.long)

    def step(x: Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        out = sae(x=x, y=x, dead_mask=None)
        out.fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
        rate.step()
        silent.add_(len(x))
        silent[out.latent_indices.flatten().unique()] = 0

    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        out = sae.encode(x)
        fired = torch.zeros(FEATURES, dtype=torch.bool)
        fired[out.top_indices[out.top_acts > 0]] = True
        return sae.decode(out.top_acts, out.top_indices), fired

    return step, rebuild


def saelens(sample: Tensor, lr: float, steps: int) -> tuple[Step, Rebuild]:
    """Its own trainer, from the start that suits it best here: unit norms, and the bias at the mean."""
    from sae_lens import (  # pyright: ignore[reportMissingImports]
        LoggingConfig,
        SAETrainer,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig  # pyright: ignore[reportMissingImports]

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D, d_sae=FEATURES, k=K, device="cpu", decoder_init_norm=1.0))
    sae.b_dec.data.copy_(sample.mean(0))
    config = SAETrainerConfig(
        total_training_samples=steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=lr,
        lr_end=lr / 100,
        lr_warm_up_steps=round(0.05 * steps),
        lr_decay_steps=round(0.2 * steps),
        device="cpu",
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(config, sae, iter([sample]))

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        sae.eval()
        codes = sae.encode(x)
        return sae.decode(codes), (codes > 0).any(0)

    return step, rebuild


def dictionary_learning(sample: Tensor, lr: float, steps: int) -> tuple[Step, Rebuild]:
    from dictionary_learning.trainers.top_k import TopKTrainer  # pyright: ignore[reportMissingImports]

    trainer = TopKTrainer(
        steps=steps,
        activation_dim=D,
        dict_size=FEATURES,
        k=K,
        layer=0,
        lm_name="planted",
        lr=lr,
        warmup_steps=round(0.05 * steps),
        decay_start=round(0.8 * steps),
        device="cpu",
        seed=0,
    )
    steps_done = count()

    def step(x: Tensor) -> None:
        trainer.update(next(steps_done), x)

    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = trainer.ae.encode(x)
        return trainer.ae.decode(codes), (codes > 0).any(0)

    return step, rebuild


def floor(sample: Tensor, lr: float, steps: int) -> tuple[Step, Rebuild]:
    W = torch.randn(D, FEATURES)
    return lambda x: torch.mm(x, W).topk(K), lambda x: (torch.zeros_like(x), torch.zeros(FEATURES, dtype=torch.bool))


SIDES = {
    "workbench": workbench,
    "sparsify": sparsify,
    "saelens": saelens,
    "dictionary_learning": dictionary_learning,
    "floor": floor,
}


# --- all sides -----------------------------------------------------------------------------------------------


class Side:
    """A process that takes steps when it is told to."""

    def __init__(self, a: argparse.Namespace, name: str, python: str, rows: Path, lr: float | None = None) -> None:
        numbers = [f"--{key}={getattr(a, key)}" for key in ("steps", "rounds", "threads", "seed")]
        rate = [] if lr is None else [f"--lr={lr}"]
        self.process = subprocess.Popen(
            [python, __file__, f"--side={name}", f"--rows={rows}", *numbers, *rate],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.answer()

    def answer(self) -> dict:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("SIDE "):
                return json.loads(line[5:])
        raise RuntimeError(f"{self.process.args} stopped; run it by hand to see why.")

    def go(self, steps: int) -> dict:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self.answer()

    def reached(self) -> dict:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.answer()


def tune(a: argparse.Namespace, pythons: dict[str, str], rows: Path) -> None:
    for name, python in pythons.items():
        for lr in GRID if name != "floor" else ():
            side = Side(a, name, python, rows, lr)
            side.go(a.steps * a.rounds)
            found = side.reached()["tune"]
            print(f"{name:20} lr {lr:.1e}  FVU {found['fvu']:.4f}  silent {found['dead']:.4f}", flush=True)


def compare(a: argparse.Namespace, pythons: dict[str, str], rows: Path) -> None:
    sides = {name: Side(a, name, python, rows) for name, python in pythons.items()}
    seconds: dict[str, list[dict]] = {name: [] for name in sides}
    for turn in range(a.rounds):
        order = list(sides)[turn % len(sides) :] + list(sides)[: turn % len(sides)]
        for name in order:
            seconds[name].append(sides[name].go(a.steps))
    print(f"d {D}, features {FEATURES}, k {K}, batch {BATCH}, float32, {a.threads} thread(s)")
    print(f"{a.rounds} rounds of {a.steps} steps each in turn; medians, and in brackets 95 % of their ratios\n")
    head = f"{'':20}{'ms/step':>9}{'CPU ms':>8}{'tok/CPU-s':>11}{'times slower':>14}{'':16}"
    print(f"{head}{'lr':>9}{'FVU':>8}{'silent':>8}")
    for name, side in sides.items():
        wall, cpu = (statistics.median(one[key] for one in seconds[name]) / a.steps for key in ("wall", "cpu"))
        ratios = [mine["cpu"] / ours["cpu"] for mine, ours in zip(seconds[name], seconds["workbench"], strict=True)]
        low, high = interval(ratios)
        found = side.reached()["held_out"]
        told = f"{LR[name]:9.1e}{found['fvu']:8.4f}{found['dead']:8.4f}" if name != "floor" else ""
        print(
            f"{name:20}{wall * 1e3:9.1f}{cpu * 1e3:8.1f}{BATCH / cpu:11,.0f}{statistics.median(ratios):14.2f}"
            f"{f'[{low:.2f}, {high:.2f}]':>16}{told}"
        )


def interval(values: list[float]) -> tuple[float, float]:
    """Return the order statistics between which the median lies with 95 % at least, whatever the distribution."""
    n, values = len(values), sorted(values)
    out = max((i for i in range(n // 2) if 2 * sum(comb(n, j) for j in range(i + 1)) <= 0.05 * 2**n), default=0)
    return values[out], values[-1 - out]


if __name__ == "__main__":
    main()

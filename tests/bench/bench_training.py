"""How fast a TopK training step is, beside the same step written with dense autograd.

    python tests/bench/bench_training.py [--steps 15] [--threads 1] [--d 256] [--features 4096] [--k 32] [--batch 2048]

Both sides take the same batches, one step each in turn; the ratio is the median of the paired ratios. The dense
side is what autograd makes of the formula, with the same fused Adam, projection and renormalisation. "floor" is
the encoder's product and ``torch.topk`` alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.dictionaries import TopK
from workbench.training import TrainConfig, train


def activations(d: int, n: int) -> Tensor:
    """Sparse mixtures of 8 d directions around a mean."""
    directions = F.normalize(torch.randn(8 * d, d), dim=-1)
    strengths = torch.rand(n, 8 * d) * (torch.rand(n, 8 * d) < 24 / (8 * d))
    return strengths @ directions + 0.1 * torch.randn(d)


def dense_step(x: Tensor, n_features: int, k: int, lr: float) -> Callable[[Tensor], None]:
    """Return a training step written plainly."""
    W_dec = F.normalize(torch.randn(n_features, x.shape[1]), dim=-1).requires_grad_()
    W_enc = W_dec.detach().T.clone().requires_grad_()
    b_enc = torch.zeros(n_features, requires_grad=True)
    b_dec = x.mean(0).clone().requires_grad_()
    adam = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=lr, fused=True)

    def step(x: Tensor) -> None:
        pre = ((x - b_dec) @ W_enc + b_enc).relu()
        values, indices = pre.topk(k, dim=-1)
        codes = torch.zeros_like(pre).scatter_(-1, indices, values)
        loss = (x - codes @ W_dec - b_dec).square().mean()
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            W_dec.grad -= (W_dec.grad * W_dec).sum(-1, keepdim=True) * W_dec
            adam.step()
            W_dec.div_(W_dec.norm(dim=-1, keepdim=True))

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"steps": 15, "threads": 1, "d": 256, "features": 4096, "k": 32, "batch": 2048}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    data = activations(a.d, 8 * a.batch).split(a.batch)
    lr = 2e-4 / (a.features / 2**14) ** 0.5

    ours = train(
        TopK(a.d, a.features, k=a.k), (data[i % 8] for i in range(a.steps + 2)), TrainConfig(steps=a.steps + 2, lr=lr)
    )
    dense = dense_step(data[0], a.features, a.k, lr)
    W, b = torch.randn(a.d, a.features), torch.zeros(a.features)
    sides: dict[str, Callable[[Tensor], object]] = {
        "workbench": lambda x: next(ours),
        "dense autograd": dense,
        "floor": lambda x: torch.addmm(b, x, W).topk(a.k, sorted=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(a.steps + 2):
        for name, step in sides.items():
            start = time.perf_counter()
            step(data[i % 8])
            seconds[name].append(time.perf_counter() - start)
    seconds = {name: times[2:] for name, times in seconds.items()}  # the first two warm caches and memory up

    print(f"d {a.d}, features {a.features}, k {a.k}, batch {a.batch}, float32, {a.threads} thread(s), {a.steps} steps")
    print(f"{'':16}{'ms/step':>10}{'steps/s':>10}{'tokens/s':>12}{'ratio':>8}   (middle half)")
    for name, times in seconds.items():
        middle = statistics.median(times)
        ratios = sorted(t / o for t, o in zip(times, seconds["workbench"], strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        print(
            f"{name:16}{middle * 1e3:10.1f}{1 / middle:10.1f}{a.batch / middle:12,.0f}"
            f"{statistics.median(ratios):8.2f}   {low:.2f} to {high:.2f}"
        )
    print("ratio: time of that side over the workbench's")


if __name__ == "__main__":
    main()

"""Whether a dictionary of Gemma Scope computes here what was published of it, and the memory that takes.

    python tests/bench/bench_gemma_scope.py pile.txt
        [--model google/gemma-2-2b]
        [--dictionary google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82]
        [--tokens 50000] [--context 1024] [--device auto] [--dtype float32] [--fvu FVU] [--delta NATS]

For a machine of your own: with a network both are downloaded once (Gemma after its licence is accepted on the hub); a
directory serves as well as a name. The text is cut into rows of ``context`` tokens, each after a beginning of text,
which is left out of every figure and never replaced: its activations are like no other's.

FVU    sum |x - y|² over sum |x - mean|²
L0     mean number of active features; the published one is the last part of the folder's name
delta  nats per token by which the model's cross entropy rises when y stands in the place of x

Lieberum et al. (2024, arXiv 2408.05147) show FVU and delta as curves over L0: read them off there, and give them as
--fvu and --delta to have them printed beside. Give text like theirs too, as every figure depends on it.

Memory: 4 bytes for each parameter of model and dictionary in float32 (Gemma 2 2B: 10.5 GB; 16k features: 0.3 GB; half
of the model's in bfloat16), and 4 bytes for each logit of one row (256,000 words at 1,024 tokens: 1 GB), a few times
over. What it took is printed.
"""

import argparse
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.dictionaries import fidelity, load_dictionary, splice
from workbench.models import Context, edited, load_model, record
from workbench.models.text import encode


def main(arguments: list[str]) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="google/gemma-2-2b")
    parser.add_argument("--dictionary", default="google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82")
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--fvu", type=float)
    parser.add_argument("--delta", type=float)
    given = parser.parse_args(arguments)

    dictionary = load_dictionary(given.dictionary)
    if not dictionary.autoencodes or len(dictionary.sites_in) != 1:
        raise SystemExit("This measures a dictionary that rebuilds the one site that it reads, named in its path.")
    model = load_model(given.model, device=given.device, dtype=getattr(torch, given.dtype))
    dictionary.check(model)
    device = next(model.parameters()).device
    dictionary.to(device)
    (site,) = dictionary.sites_in
    bos, *ids = encode(model, given.text.read_text())
    length = min(given.context, model.cfg.n_ctx) - 1
    count = min(len(ids), given.tokens) // length
    if not count:
        raise SystemExit(f"The text has {len(ids)} tokens and --tokens is {given.tokens}; one row takes {length}.")
    rows = F.pad(torch.tensor(ids[: count * length], device=device).view(-1, length), (1, 0), value=bos)

    def activations() -> Iterator[Tensor]:
        for row in rows:
            yield record(model, row[None], [site])[site][0, 1:].flatten(1)

    put = splice(dictionary, error="drop")

    def replaced(acts: Tensor, context: Context) -> Tensor:
        y = put(acts, context)
        y[:, 0] = acts[:, 0]
        return y

    @torch.no_grad()
    def cross_entropy() -> float:
        losses = [F.cross_entropy(model(row[None])[0, 1:-1].float(), row[2:]) for row in rows]
        return float(torch.stack(losses).mean())

    kept, clean = fidelity(dictionary, activations()), cross_entropy()
    with edited(model, {site: replaced}):
        spliced = cross_entropy()
    parameters = {"model": model, "dictionary": dictionary}
    gigabytes = {
        name: sum(p.numel() * p.element_size() for p in m.parameters()) / 1e9 for name, m in parameters.items()
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    last = Path(given.dictionary).name.rpartition("_")[2]
    published = {"FVU": given.fvu, "L0": float(last) if last.isdigit() else None, "delta": given.delta}
    measured = {"FVU": kept.fvu, "L0": kept.l0, "delta": spliced - clean}

    print(f"{given.dictionary} at {site} of {given.model}: {rows[:, 1:].numel():,} tokens, {given.dtype}, {device}")
    print(f"{'':8}{'here':>10}{'published':>12}")
    for name, value in measured.items():
        print(f"{name:8}{value:10.4f}{'—' if published[name] is None else published[name]:>12}")
    print(f"cross entropy {clean:.4f} nats per token, with the reconstruction {spliced:.4f}")
    print(f"parameters: model {gigabytes['model']:.2f} GB, dictionary {gigabytes['dictionary']:.2f} GB")
    print(f"most memory held: {peak:.2f} GB", end="")
    print(f", on the device {torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if device.type == "cuda" else "")
    return {**measured, "clean": clean, "spliced": spliced, "peak": peak}


if __name__ == "__main__":
    main(sys.argv[1:])

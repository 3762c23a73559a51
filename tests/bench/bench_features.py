"""What describing features costs: ``python tests/bench/bench_features.py [--peer sae_dashboard=PYTHON]``.

In turn on the shipped dictionary, in CPU time of one thread; medians, and the range of the ratios. Beside reading and
encoding the same rows, the limit is twice.

With a peer, beside the feature data of sae_dashboard 0.8 instead. PYTHON has it with sae-lens 6.54, transformer-lens
2.17 and pyarrow below 20. Both get the same model, dictionary and tokens, texts cut to one length and without labels,
which it does not know; both read activations that they kept before and describe all features. Densities and maxima
must agree. The tokens that a feature raises need not: sae_dashboard takes the product of direction and unembedding,
which leaves out the final norm, and so both are held against what a small step before that norm really raises.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from bench_peers import interval
from safetensors.torch import save_file
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.dictionaries import Dictionary, export, load_dictionary
from workbench.features import FeatureSet, describe
from workbench.features.describe import CHUNK, chunks
from workbench.language import Language
from workbench.models import Site, TransformerBridge, load_model, record
from workbench.models.loading import PRETRAINED

TEXTS, LENGTH = 2048, 32
"""What a peer gets: texts of so many tokens each."""


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time that ``work`` takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Time both in turn and print the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", metavar="sae_dashboard=PYTHON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, dictionary = load_model("tiny", device="cpu"), load_dictionary("tiny")
    texts = Language(0).documents(given.documents, split="train", seed=0)
    if given.peer:
        tokens = texts.tokens[texts.lengths >= LENGTH][:TEXTS, :LENGTH].contiguous()
        return beside_peer(given.peer.partition("=")[2], model, dictionary, tokens, given.rounds)
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


def beside_peer(python: str, model: TransformerBridge, dictionary: Dictionary, tokens: Tensor, rounds: int) -> None:
    """Time ``describe`` and sae_dashboard in turn, and print the ratio and where they differ."""
    # It folds the norms of the rows into the codes; half precision on disk has left them at 1 ± 1e-4.
    dictionary.W_dec.data = F.normalize(dictionary.W_dec.data)
    store = ActivationStore.collect(model, tokens, dictionary.sites_in, keep_bos=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_file({"tokens": tokens}, folder / "tokens.safetensors")
        export(dictionary, folder / "dictionary", "saelens")
        script = Path(__file__).with_name("dashboard_side.py")
        peer = subprocess.Popen(
            [python, str(script), str(folder), str(PRETRAINED / "tiny")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        answer(peer, "describe")
        pairs = []
        for _ in range(rounds):
            ours = seconds(lambda: describe(dictionary, store, model))
            pairs.append((ours, answer(peer, "describe")["cpu"]))
        theirs = answer(peer, "tell")
        peer.communicate()
    ours, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = [second / first for first, second in pairs]
    low, high = interval(ratios)
    print(f"{len(store):,} tokens, {dictionary.n_features} features, one thread, {rounds} rounds in turn")
    print(f"describe {ours:.2f} s, sae_dashboard {other:.2f} s of CPU time")
    print(f"{statistics.median(ratios):.2f} × [{low:.2f}, {high:.2f}]")
    agree(describe(dictionary, store, model), theirs, raised(model, dictionary, tokens[:32]))


def answer(peer: subprocess.Popen[str], question: str) -> dict:
    """Return what the peer says to a question."""
    assert peer.stdin is not None
    assert peer.stdout is not None
    peer.stdin.write(f"{question}\n")
    peer.stdin.flush()
    for line in peer.stdout:
        if line.startswith("SIDE "):
            return json.loads(line[5:])
    sys.exit(f"{peer.args} stopped; run it by hand, with a line of input that says describe, to see why.")


def agree(features: FeatureSet, theirs: dict, truth: Tensor) -> None:
    """Print the largest differences over all features, and how many of the tokens raised most each names."""
    of = features.columns
    density, most = torch.tensor(theirs["density"]), torch.tensor(theirs["max"])
    density_apart = (of["count"] / features.rows - density).abs().max()
    apart = ((of["max"] - most).abs() / of["max"].clamp_min(1e-9)).max()
    ours, other = of["raised"].long(), torch.tensor(theirs["raised"])  # [feature, 10]
    print(f"largest difference of densities {float(density_apart):.1e}, of maxima {float(apart):.1e} of the maximum")
    print(f"of the ten tokens that each says are raised most, {shared(ours, other):.1%} are the same")
    print(f"of those really raised most, {shared(ours, truth):.1%} and {shared(other, truth):.1%} are named")


def shared(one: Tensor, other: Tensor) -> float:
    """Return the mean share of tokens that both name, over the features that both have."""
    n = min(len(one), len(other))
    return float((one[:n, :, None] == other[:n, None]).any(-1).float().mean())


def raised(model: TransformerBridge, dictionary: Dictionary, tokens: Tensor, n: int = 100) -> Tensor:
    """Return the ten tokens that a tenth of a unit of each of the first features raises most, from the last block."""
    last = Site(model.cfg.n_layers - 1)
    resid = record(model, tokens, [last])[last].flatten(0, 1)

    def logits(x: Tensor) -> Tensor:
        return (model.ln_final(x[None])[0] @ model.W_U).mean(0)

    before = logits(resid)
    changes = [logits(resid + 0.1 * direction) - before for direction in dictionary.W_dec[:n]]
    return torch.stack(changes).topk(10).indices


if __name__ == "__main__":
    main()

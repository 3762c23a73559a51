"""The scorecard of a shipped dictionary: ``python tests/bench/bench_scorecard.py [NAME] [--documents N] [--seed S]``.

For every label of the language with rows enough, the held-out F1 of the best feature stands beside that of the best
neuron, of shuffled labels, and beside the Bayes ceiling: what any causal model can know. The seed is that of the test
documents; without one it is drawn, so that no figure is tuned to its documents.
"""

import argparse
import secrets

import torch

from workbench.activations import ActivationStore
from workbench.dictionaries import load_dictionary
from workbench.evaluation import scorecard
from workbench.language import Language
from workbench.language.ceilings import ceilings
from workbench.models import load_model

torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="tiny")
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--seed", type=int, default=secrets.randbits(31))
    told = parser.parse_args()
    language, model, dictionary = Language(0), load_model("tiny"), load_dictionary(told.name)
    documents = language.documents(told.documents, split="test", seed=told.seed)
    sites = [*dictionary.sites_in, *dictionary.sites_out]
    store = ActivationStore.collect(model, documents, list(dict.fromkeys(sites)))
    best = ceilings(language, documents)
    rows = -(-len(store) // told.draws)
    card = scorecard({told.name: dictionary}, store, model, ceilings=best, draws=told.draws, rows=rows, seed=told.seed)
    print(f"{told.name} on {len(store):,} tokens of {told.documents} test documents of seed {told.seed}\n\n{card}\n")
    table = card.probes.query("k == 1").pivot_table(
        index=["label", "value"], columns="dictionary", values="f1", sort=False
    )
    own = card.probes.query("k == 1 and dictionary == @told.name").set_index(["label", "value"])
    table = table.join(own[["shuffled", "ceiling"]])
    print(f"held-out F1 of the best unit, for {len(table)} values of labels")
    print(table.to_string(float_format="{:.2f}".format))
    better = int((table[told.name] > table["neurons"]).sum()) if "neurons" in table else 0
    print(f"\nthe best feature is above the best neuron for {better} of {len(table)}")
    print(f"\n{card.absorbed.to_string(index=False, float_format='{:.2f}'.format)}")


if __name__ == "__main__":
    main()

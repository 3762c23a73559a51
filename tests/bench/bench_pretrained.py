"""The figures of what is shipped, measured anew: ``python tests/bench/bench_pretrained.py [SEED]``.

The seed is that of the test documents; without one it is drawn, so that no figure is tuned to its documents.
"""

import secrets
import sys

import torch

from workbench.activations import ActivationStore
from workbench.dictionaries import fidelity, load_dictionary
from workbench.language import Language
from workbench.language.exam import examine, planted
from workbench.models import load_model

torch.set_num_threads(1)


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else secrets.randbits(31)
    language, model, dictionary = Language(0), load_model("tiny"), load_dictionary("tiny")
    exam = examine(lambda ids: model(ids), language, language.documents(1200, split="test", seed=seed))
    print(f"test documents of seed {seed}")
    print(f"KL(oracle | model) {exam.kl:.4f} ± {exam.kl_error:.4f} nats per token; entropy {exam.entropy:.3f}")
    print(f"probability on tokens the language allows {exam.grammatical_mass:.4f}")
    print(exam.families.to_string(index=False), exam.slots.to_string(index=False), sep="\n\n")
    certain = exam.slots[exam.slots["certain"]]
    right = (certain["accuracy"] * certain["count"]).sum()
    print(f"\nright at {right:.0f} of the {certain['count'].sum()} places where the language leaves one word only")
    print(planted(lambda ids: model(ids), language, seed=seed).to_string(index=False))
    (site,) = dictionary.sites_in
    store = ActivationStore.collect(model, language.documents(4000, split="test", seed=seed), [site])
    print(f"\ndictionary at {site}, {len(store)} activations: {fidelity(dictionary, store.rows(slice(None)).acts)}")


if __name__ == "__main__":
    main()

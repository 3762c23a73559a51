"""The figures of what is shipped, measured anew: ``python tests/bench/bench_pretrained.py [SEED]``.

The seed is that of the test documents; without one it is drawn, so that no figure is tuned to its documents.
"""

import secrets
import sys

import pandas as pd
import torch

from workbench.activations import ActivationStore
from workbench.dictionaries import fidelity, load_dictionary, splice_kl
from workbench.dictionaries.storage import shipped
from workbench.language import Language
from workbench.language.exam import examine, peculiarities
from workbench.models import load_model

torch.set_num_threads(1)


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else secrets.randbits(31)
    language, model = Language(0), load_model("tiny")
    documents = language.documents(1200, split="test", seed=seed)
    exam = examine(lambda ids: model(ids), language, documents)
    print(f"test documents of seed {seed}")
    print(f"KL(oracle | model) {exam.kl:.4f} ± {exam.kl_error:.4f} nats per token; entropy {exam.entropy:.3f}")
    print(f"probability on tokens the language allows {exam.grammatical_mass:.4f}")
    print(exam.families.to_string(index=False), exam.slots.to_string(index=False), sep="\n\n")
    certain = exam.slots[exam.slots["certain"]]
    right = (certain["accuracy"] * certain["count"]).sum()
    print(f"\nright at {right:.0f} of the {certain['count'].sum()} places where the language leaves one word only")
    print(peculiarities(lambda ids: model(ids), language, seed=seed).to_string(index=False))
    for name in ("tiny-1", "tiny-2"):
        seed_of_its_own = load_model(name)
        other = examine(lambda ids, m=seed_of_its_own: m(ids), language, documents)
        print(f"{name}: KL {other.kl:.4f} ± {other.kl_error:.4f}; on allowed tokens {other.grammatical_mass:.4f}")
    dictionaries = {name: load_dictionary(name) for name in shipped()}
    sites = sorted({site for one in dictionaries.values() for site in (*one.sites_in, *one.sites_out)})
    store = ActivationStore.collect(model, language.documents(4000, split="test", seed=seed), sites, dtype=torch.half)
    texts = documents[:300]
    where = texts.mask & (texts.tokens != model.tokenizer.bos_token_id)
    rows = []
    for name, one in dictionaries.items():
        found = fidelity(one, store.rows(slice(None), [*one.sites_in, *one.sites_out]).acts)
        kl = float(splice_kl(model, one, texts.tokens, where=where)[where].mean())
        told = one.provenance["held_out"][0]
        rows.append({"name": name, "fvu": found.fvu, "l0": found.l0, "dead": found.dead, "kl": kl})
        rows[-1] |= {f"{key} by its card": told[key] for key in ("fvu", "kl")}
    print(f"\ndictionaries on {len(store):,} activations; KL of the model with each in place, on {len(texts)} texts")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.4g}".format))


if __name__ == "__main__":
    main()

"""What the draws of a scorecard learn from and are judged on, and the controls that each makes."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workbench.activations import ActivationStore, Rows
from workbench.dictionaries import PCA, Dictionary, Neurons, TopK, fidelity
from workbench.dictionaries.fidelity import FORWARD
from workbench.models import TransformerBridge
from workbench.training import TrainConfig, train

STRETCHES, LEAST = 8, 512
"""Places of the store, evenly spread, that a part is taken from; fewer where there would be fewer rows at each, since
texts that begin or end elsewhere are left out."""

FEWEST = 20
"""Rows with a label, in either part, under which it is not asked for."""

STEPS, BATCH = 400, 1024
"""For which the frozen decoder's encoder is trained, and on how many rows at a time."""


class Part:
    """Some documents: their rows at the sites of the dictionaries, and their tokens."""

    def __init__(self, rows: Rows, dictionary: Dictionary, model: TransformerBridge | None) -> None:
        self.acts, self.labels, self.names = rows.acts, rows.labels, rows.names
        (read,), (write,) = dictionary.sites_in, dictionary.sites_out
        self.x, self.y = (rows.acts[site].to(dictionary.W_dec) for site in (read, write))
        bos = None if model is None or model.tokenizer is None else model.tokenizer.bos_token_id
        kept = torch.cat([rows.begins, torch.tensor([len(rows.tokens)])]).diff().tolist()
        # By length, so that little of a batch is padding.
        self.texts = sorted(zip(rows.texts(bos), kept, strict=True), key=lambda text: len(text[0]))

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield tokens [text, pos], where they are not padding, and which of them are rows."""
        left = self.texts
        while left:
            size = max(1, FORWARD // len(left[0][0]))
            while size > 1 and size * len(left[:size][-1][0]) > FORWARD:
                size -= 1
            some, left = left[:size], left[size:]
            tokens = pad_sequence([text for text, _ in some], batch_first=True)
            place = torch.arange(tokens.shape[1])
            length, kept = (torch.tensor(each)[:, None] for each in zip(*((len(t), n) for t, n in some), strict=True))
            yield tokens, place < length, (place >= length - kept) & (place < length)


def parts_of(store: ActivationStore, dictionary: Dictionary, draws: int, rows: int) -> list[Rows]:
    """Return one part for each draw, of whole texts, taken in turn from all over the store."""
    if draws < 2 or rows < 2 * FEWEST:
        raise ValueError(f"A card takes 2 draws or more, of {2 * FEWEST} rows or more; got draws={draws}, rows={rows}.")
    stretches = max(1, min(STRETCHES, len(store) // (LEAST * draws)))
    index: list[list[Tensor]] = [[] for _ in range(draws)]
    for n, stretch in enumerate(store.stretches(draws * stretches, -(-rows // stretches))):
        index[n % draws].append(torch.arange(stretch.start, stretch.stop))
    if min(sum(map(len, part)) for part in index) < 2 * FEWEST:
        raise ValueError(
            f"A card of {draws} draws takes {2 * FEWEST * draws} rows at the least, and some thousands to say much; "
            f"this store has {len(store)}, in texts that leave a draw with fewer. Give more text, or fewer draws."
        )
    sites = dict.fromkeys([*dictionary.sites_in, *dictionary.sites_out])
    return [store.rows(torch.cat(part), list(sites)) for part in index]


def controls_for(dictionary: Dictionary, learn: Part, seed: int) -> dict[str, Dictionary]:
    """Return what stands beside ``dictionary`` by default."""
    l0 = fidelity(dictionary, learn.acts).l0
    d_in, d_out, n = dictionary.d_in, dictionary.d_out, dictionary.n_features
    k = min(max(1, round(l0)), n)
    read, write = dictionary.sites_in, dictionary.sites_out
    frozen = TopK(d_in, n, k=k, d_out=d_out, sites_in=read, sites_out=write, seed=seed, frozen=True)
    random = torch.Generator().manual_seed(seed)
    size = min(BATCH, len(learn.y))
    batches = (
        {site: acts[chosen] for site, acts in learn.acts.items()}
        for chosen in (torch.randint(len(learn.y), (size,), generator=random) for _ in range(STEPS))
    )
    list(train(frozen.to(dictionary.W_dec.device), batches, TrainConfig(steps=STEPS, lr=5e-3)))
    found: dict[str, Dictionary] = {"frozen decoder": frozen}
    if dictionary.autoencodes:
        rank = int(torch.linalg.matrix_rank((learn.x - learn.x.mean(0)).double()))
        found["PCA"] = PCA(d_in, rank, k=min(k, rank), sites_in=read)
        found["neurons"] = Neurons(d_in, d_in, sites_in=read)
        for fitted in list(found.values())[1:]:
            fitted.to(dictionary.W_dec.device).initialise(learn.acts)
    return found

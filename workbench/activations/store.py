"""The store of activations: what it is harvested from, what it gives, and what it refuses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.activations.batches import Batches
from workbench.activations.harvest import DTYPES, Progress, harvest
from workbench.activations.shards import MANIFEST, FileShard, Manifest, Shard, gather
from workbench.activations.sources import Source, label_names
from workbench.activations.statistics import Statistics, measure
from workbench.models import Site, TransformerBridge, fingerprint, record

SHARD_BYTES = 32 * 2**20
BUFFER_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Rows:
    """Some tokens with all that is known about them."""

    acts: dict[Site, Float[Tensor, "row _d"]]
    """The activations; sites may differ in width."""

    tokens: Int[Tensor, " row"]
    """Token ids."""

    pos: Int[Tensor, " row"]
    """Positions; the beginning of the text is 0, whether its row is kept or not."""

    doc: Int[Tensor, " row"]
    """Numbers of the documents in the source."""

    labels: dict[str, Int[Tensor, " row"]]
    """Label codes; 0 where a label does not apply."""

    names: dict[str, tuple[str, ...]]
    """What the label codes mean."""

    @property
    def begins(self) -> Int[Tensor, " text"]:
        """The numbers of the rows at which a text begins, or a piece of one that is longer than the context."""
        follows = (self.doc[1:] == self.doc[:-1]) & (self.pos[1:] == self.pos[:-1] + 1)
        return torch.cat([torch.zeros(1, dtype=torch.long), 1 + (~follows).nonzero()[:, 0]])

    def texts(self, bos: int | None) -> list[Int[Tensor, " pos"]]:
        """Return the tokens of each text, led by the beginning-of-text token where the store has left it out."""
        begins = self.begins
        return [
            torch.cat([torch.tensor([bos]), part]) if at == 1 and bos is not None else part
            for at, part in zip(self.pos[begins].tolist(), self.tokens.tensor_split(begins[1:]), strict=True)
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return a table of tokens, positions, documents and labels, one line per row."""
        columns: dict[str, Any] = {"token": self.tokens.numpy(), "pos": self.pos.numpy(), "doc": self.doc.numpy()}
        for label, codes in self.labels.items():
            columns[label] = pd.Categorical.from_codes(codes.numpy(), list(self.names[label]))
        return pd.DataFrame(columns)


@final
class ActivationStore:
    """One row per token of a corpus: its activations, token, position, document and labels.

    Make one with ``collect`` and read one from disk with ``open``.
    """

    def __init__(self, manifest: Manifest, shards: Sequence[Shard]) -> None:
        self._manifest = manifest
        self._shards = list(shards)

    @classmethod
    def collect(
        cls,
        model: TransformerBridge,
        source: Source,
        sites: Sequence[Site],
        *,
        directory: str | Path | None = None,
        dtype: torch.dtype | None = None,
        keep_bos: bool = False,
        batch_tokens: int = 4096,
        shard_rows: int | None = None,
        progress: Progress | None = None,
    ) -> "ActivationStore":
        """Run ``model`` over ``source`` once, up to the last of ``sites``, and keep a row per token.

        Padding is never kept, nor is the beginning-of-text token, whose activation is often a hundred times the
        others' and says nothing; the end-of-text token is, as a token like any other. With a directory, a harvest
        that was stopped goes on when it is called again with the same arguments.

        Args:
            model: The model.
            source: ``Documents``, texts, a ``Path`` to a file with one text per line, a Hugging Face data set with
                a column ``text``, or tokens as a ``[doc, pos]`` tensor with padding last. Texts longer than the
                context are cut into pieces, each with its own beginning and positions.
            sites: What to keep; ``z`` is flattened over its heads, and ``pattern``, which is no row, is refused.
            directory: Where to write; None keeps the rows in memory.
            dtype: How rows are stored; None stores what the model computes.
            keep_bos: Keep the beginning-of-text token too.
            batch_tokens: How many tokens, padding included, share a forward.
            shard_rows: How many rows make a file, and the work that an interrupt can lose; None is 32 MB.
            progress: Called after each forward with the documents that are finished and the rows that are done.
        """
        manifest = _plan(model, source, sites, dtype, keep_bos, batch_tokens, shard_rows)
        place = None if directory is None else Path(directory).expanduser()
        if place is not None:
            begun = _begun(place)
            if begun is not None and begun.parts:
                manifest = _same(manifest, begun, place)
            else:
                manifest.write(place)
        return cls(*harvest(model, source, manifest, place, progress))

    @classmethod
    def open(cls, directory: str | Path) -> "ActivationStore":
        """Return the store in ``directory``, complete or as far as it got."""
        place = Path(directory).expanduser()
        manifest = Manifest.read(place)
        if manifest is None:
            raise ValueError(f"{str(place)!r} holds no activations, for it has no manifest.json; collect writes them.")
        if not manifest.parts:
            raise ValueError(f"{str(place)!r} holds no rows yet; collect, called as before, goes on with it.")
        shards = [FileShard(place / part.file, part.rows) for part in manifest.parts]
        for shard in shards:
            shard.check()
        return cls(manifest, shards)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._manifest.rows

    def __repr__(self) -> str:
        sites = ", ".join(f"{site} ({width})" for site, width in self._manifest.sites.items())
        state = "" if self.complete else ", incomplete"
        return f"ActivationStore({len(self)} rows of {self._manifest.documents} documents at {sites}{state})"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that this store holds."""
        return tuple(Site.parse(name) for name in self._manifest.sites)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The labels that its rows carry, and what their codes mean."""
        return dict(self._manifest.labels)

    @property
    def complete(self) -> bool:
        """Whether the whole source was harvested."""
        return self._manifest.complete

    @property
    def fingerprint(self) -> str:
        """Of the model that its rows come from."""
        return self._manifest.model

    def check(self, model: TransformerBridge) -> None:
        """Raise unless ``model`` is the one that these activations came from."""
        if fingerprint(model) != self._manifest.model:
            raise ValueError(
                f"These activations came from another model, {self._manifest.model_name!r} with fingerprint "
                f"{self._manifest.model}, not {fingerprint(model)}; load that model, or harvest from this one."
            )

    def rows(self, index: int | slice | Sequence[int] | Tensor, sites: Sequence[Site] | None = None) -> Rows:
        """Return the rows with the given numbers; ``sites=()`` reads no activations."""
        chosen = self._index(index)
        held = self._held(self.sites if sites is None else sites)
        acts = {site: gather(self._shards, str(site), chosen) for site in held}
        token, pos, doc = (gather(self._shards, name, chosen).long() for name in ("token", "pos", "doc"))
        labels = {name: gather(self._shards, f"label.{name}", chosen).long() for name in self.names}
        return Rows(acts, token, pos, doc, labels, self.names)

    def batches(self, sites: Sequence[Site], size: int, seed: int, *, buffer_rows: int | None = None) -> Batches:
        """Return endless shuffled batches, ``{site: [size, d]}``; every epoch visits each row once.

        Args:
            sites: What a batch holds.
            size: Rows per batch.
            seed: The same seed gives the same batches.
            buffer_rows: How many rows of a store on disk are held and mixed at a time; None is 256 MB.
        """
        if not 0 < size <= len(self):
            raise ValueError(f"A batch holds 1 to {len(self)} rows (all of this store), got {size}.")
        held = self._held(sites)
        if not held:
            raise ValueError(f"A batch needs at least one site; this store has {', '.join(map(str, self.sites))}.")
        width = sum(self._manifest.sites[str(site)] for site in held)
        rows = buffer_rows or max(size, BUFFER_BYTES // (4 * width))
        return Batches(self._shards, held, size, seed, rows, self._manifest.model)

    def stretches(self, places: int, rows: int) -> Iterator[slice]:
        """Yield the numbers of whole texts' rows: at most ``rows`` at each of ``places``, evenly spread.

        Where a place holds no whole text, it yields nothing.
        """
        for n in range(places):
            start = n * len(self) // places
            end = min(start + rows, (n + 1) * len(self) // places)
            begins = self.rows(slice(start, end), ()).begins
            begins = begins[begins > 0] if start else begins  # what comes before belongs to a text from elsewhere
            if len(begins) > 1 or (len(begins) and end == len(self)):
                yield slice(start + int(begins[0]), end if end == len(self) else start + int(begins[-1]))

    def statistics(self, site: Site, *, multiple: float | int = 10.0) -> Statistics:
        """Return mean, norm and outliers of ``site``: the rows whose norm exceeds ``multiple`` times the median."""
        (held,) = self._held([site])
        return measure(self._shards, str(held), float(multiple))

    def _held(self, sites: Sequence[Site]) -> list[Site]:
        _refuse_bare(sites)
        for site in sites:
            if site not in self.sites:
                near = min(self.sites, key=lambda other: (other.stream != site.stream, abs(other.layer - site.layer)))
                raise ValueError(
                    f"This store has no {site}; the nearest is {near}, all are {', '.join(map(str, self.sites))}."
                )
        return list(dict.fromkeys(sites))

    def _index(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        if isinstance(index, slice):
            return torch.arange(*index.indices(len(self)))
        chosen = torch.as_tensor(index)
        if chosen.dtype == torch.bool:
            if chosen.shape != (len(self),):
                raise ValueError(f"A mask over rows has shape ({len(self)},), got {tuple(chosen.shape)}.")
            chosen = chosen.nonzero()
        chosen = chosen.long().reshape(-1)
        chosen = torch.where(chosen < 0, chosen + len(self), chosen)
        if len(chosen) and (int(chosen.min()) < 0 or int(chosen.max()) >= len(self)):
            raise ValueError(f"Rows are numbered 0 to {len(self) - 1}, got {int(chosen.min())} to {int(chosen.max())}.")
        return chosen


def _refuse_bare(sites: Sequence[Site]) -> None:
    if isinstance(sites, Site):
        raise TypeError(f"A store takes a list of sites, got one; write [{sites!r}].")


def _plan(
    model: TransformerBridge,
    source: Source,
    sites: Sequence[Site],
    dtype: torch.dtype | None,
    keep_bos: bool,
    batch_tokens: int,
    shard_rows: int | None,
) -> Manifest:
    """Return the manifest of a harvest before its first row."""
    _refuse_bare(sites)
    for site in sites:
        if site.stream == "pattern":
            raise ValueError(f"{site} has a row per pair of tokens, not per token; read it with record.")
    # One token shows every width, and a site that the model lacks, before the corpus is touched.
    probe = record(model, torch.zeros(1, 1, dtype=torch.long), sites)
    widths = {str(site): acts.flatten(2).shape[2] for site, acts in probe.items()}
    stored = dtype or next(iter(probe.values())).dtype
    name = str(stored).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"Activations are stored as {', '.join(DTYPES)}, got {name}.")
    for argument, value in (("batch_tokens", batch_tokens), ("shard_rows", shard_rows)):
        if value is not None and value < 1:
            raise ValueError(f"{argument} must be at least 1, got {value}.")
    rows = shard_rows or max(1024, SHARD_BYTES // (stored.itemsize * sum(widths.values())))
    settings = {"keep_bos": keep_bos, "batch_tokens": batch_tokens, "shard_rows": rows}
    model_name = Path(str(model.cfg.model_name)).name
    return Manifest(fingerprint(model), model_name, widths, name, settings, label_names(source))


def _begun(directory: Path) -> Manifest | None:
    """Return the harvest that was begun in ``directory``, or None if it is new or empty; refuse any other."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"{str(directory)!r} is a file or lies in one; a store is a directory, so give another."
        ) from None
    begun = Manifest.read(directory)
    # What a killed writer leaves is ours; hidden files are the system's.
    others = [file.name for file in directory.iterdir() if file.name[0] != "." and file.name != f"{MANIFEST}.tmp"]
    if begun is None and others:
        raise ValueError(
            f"{str(directory)!r} holds no activations, but other things ({min(others)!r} among {len(others)}); "
            "a store has a directory to itself, so give a new or an empty one."
        )
    if begun is not None:
        for leftover in (*directory.glob("*.tmp"), *directory.glob(".tmp*")):
            leftover.unlink()
    return begun


def _same(manifest: Manifest, begun: Manifest, directory: Path) -> Manifest:
    """Return the harvest that was begun in ``directory``, if it is the one now asked for."""
    found = begun.plan()
    for name, asked in manifest.plan().items():
        if found[name] != asked:
            what = "another model (fingerprint" if name == "model" else f"other {name} ("
            raise ValueError(
                f"{str(directory)!r} holds a harvest with {what} {found[name]}, asked for {asked}); "
                "go on with what it was begun with, or give another directory."
            )
    return begun

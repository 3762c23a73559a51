"""The engine of the steering panel: one text steered, one not, one with a random direction, written in turn."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from workbench.models import GeneratedToken, Site, TransformerBridge, generate, tokenize
from workbench.models.generation import Cancel
from workbench.steering import add, random_direction
from workbench.views.columns import Column, Shown
from workbench.views.jobs import Job

Writer = Callable[[str, Tensor | None, int, Cancel], Iterator[GeneratedToken]]
"""``writer(prompt, vector, seed, cancel)``: continue ``prompt`` with ``vector`` added, nothing if it is None."""

Pieces = Sequence[tuple[str, bool]]


@dataclass(frozen=True)
class Comparison:
    """What is compared; the settings that a reader turns are arguments of ``write``."""

    writer: Writer
    """Writes one text."""

    direction: Float[Tensor, " d_model"]
    """What strength 1 adds."""

    targets: frozenset[int | str]
    """Token ids and lower-case words to count."""

    target_name: str
    """What the targets are called."""

    max_new_tokens: int
    """Length of each text, for the progress."""

    place: str
    """Where the direction is added, for the caption."""

    def write(self, prompt: str, seed: int, strength: float, job: Job) -> Shown | None:
        """Write the three texts, posting ``shown`` after every round; return the last, None if cancelled."""
        vectors = {
            f"Steered ({_signed(strength)})": strength * self.direction,
            "Unsteered": None,
            f"Random direction ({_signed(strength)})": strength * random_direction(self.direction, seed),
        }
        caption = f"Strength {_signed(strength)}, seed {seed}" + (f", added at {self.place}" if self.place else "")
        pieces: dict[str, list[tuple[str, bool]]] = {title: [] for title in vectors}

        def post(progress: float, status: str) -> Shown:
            columns = [self.column(title, written) for title, written in pieces.items()]
            shown = Shown(caption, prompt, columns, status or _done(columns))
            job.post(progress, shown=shown)
            return shown

        # A prompt that the model cannot read is refused here, while the texts of the last run still stand.
        streams = {title: self.writer(prompt, vector, seed, job.cancel) for title, vector in vectors.items()}
        post(0.0, "Writing …")
        try:
            for rounds in range(1, self.max_new_tokens + 1):
                for title in vectors:
                    token = None if job.cancel.is_set() else next(streams[title], None)
                    if token is not None and token.text:  # the end-of-text token has no text
                        pieces[title].append((token.text, self.is_target(token)))
                if job.cancel.is_set():
                    post(0.0, "Cancelled: the texts stop where they were.")
                    return None
                post(rounds / self.max_new_tokens, "Writing …")
        except BaseException:  # an interrupted ``run_sync`` too
            post(0.0, "Stopped by an error.")
            raise
        return post(1.0, "")

    def is_target(self, token: GeneratedToken) -> bool:
        """Say whether ``token`` counts."""
        return token.id in self.targets or _folded(token.text) in self.targets

    def column(self, title: str, pieces: Pieces) -> Column:
        """Return ``pieces`` with their count."""
        hits = sum(marked for _, marked in pieces)
        if not self.targets:
            return Column(title, list(pieces), None, f"{len(pieces)} tokens")
        share = hits / len(pieces) if pieces else 0.0
        readout = f"{share:.0%} {self.target_name} ({hits} of {len(pieces)} tokens)"
        return Column(title, list(pieces), share, readout)


def model_writer(model: TransformerBridge, site: Site, max_new_tokens: int) -> Writer:
    """Return the writer that adds the vector at ``site`` of ``model``."""

    def write(prompt: str, vector: Tensor | None, seed: int, cancel: Cancel) -> Iterator[GeneratedToken]:
        edits = {} if vector is None else {site: add(vector)}
        tokens = tokenize(model, prompt)
        return generate(model, tokens, edits=edits, seed=seed, cancel=cancel, max_new_tokens=max_new_tokens)

    return write


def target_set(targets: Collection[int] | Collection[str]) -> frozenset[int | str]:
    """Return token ids as they are and words as they are compared."""
    if isinstance(targets, str):
        raise TypeError(f"targets must be a collection of words or token ids, got the string {targets!r}; use a list.")
    return frozenset(_folded(target) if isinstance(target, str) else int(target) for target in targets)


def _folded(text: str) -> str:
    """Return ``text`` as it is compared: without case and outer spaces."""
    return text.strip().casefold()


def _signed(strength: float) -> str:
    """Return ``strength`` with its sign, as it is shown."""
    return f"{strength:+.3g}".replace("-", "−") if strength else "0"


def _done(columns: Sequence[Column]) -> str:
    """Return the result in one line."""
    shares = [f"{column.title.lower()} {column.share:.0%}" for column in columns if column.share is not None]
    return f"Done: {', '.join(shares)}." if shares else "Done."

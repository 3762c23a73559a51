"""Browse documents of the built-in language, coloured by a label or by how surprising each token is.

State: family, seed and colour. Engine: the documents, the exact oracle and the model, in a job. View: two lists and
a number over a ``TokenView``.
"""

from typing import Any

import ipywidgets
import traitlets
from torch import Tensor
from typing_extensions import override

from workbench.language import Documents, Language
from workbench.models import TransformerBridge
from workbench.views.base import Panel, rounded
from workbench.views.jobs import WORKER, Job, JobState, guarded
from workbench.views.tokens import TokenView

EVERY = "one of each"
EXACT, MODEL, BEYOND = "surprise, exact", "surprise of the model", "surprise beyond the exact"


class BrowserState(JobState):
    """What is shown."""

    family = traitlets.Unicode()
    seed = traitlets.Int()
    colour = traitlets.Unicode(EXACT)
    drawn = traitlets.Any()
    """The documents, and for each way to surprise one row of nats per document; None before the first."""


def document_browser(
    language: Language, model: TransformerBridge | None = None, *, family: str = EVERY, n: int = 4, seed: int = 0
) -> "DocumentBrowser":
    """Return a widget that shows ``n`` test documents of a family, or one of every family.

    Surprise is −log P(token | tokens before), in nats: of the exact oracle, and of ``model`` if one is given; what
    the model adds to the exact is what it does not know, and below zero where it was lucky.
    """
    if family != EVERY and family not in language.families:
        raise ValueError(f"there is no family {family!r}; the families are {', '.join(language.families)}.")
    if n < 1:
        raise ValueError(f"n must be at least 1 document, got {n}.")
    return DocumentBrowser(language, model, family, n, seed)


class DocumentBrowser(Panel):
    """The widget that ``document_browser`` returns."""

    def __init__(self, language: Language, model: TransformerBridge | None, family: str, n: int, seed: int) -> None:
        self.language, self.model, self.n = language, model, n
        self.state = BrowserState(family=family, seed=seed)
        self.tokens = TokenView([], [])
        self.family = ipywidgets.Dropdown(description="Family", options=[EVERY, *language.families])
        self.colour = ipywidgets.Dropdown(description="Colour", options=[EXACT])
        self.more = ipywidgets.Button(description="More", tooltip="Show other documents")
        super().__init__([ipywidgets.HBox([self.family, self.colour, self.more]), self.tokens], self.state)
        self.add_class("workbench-documents")
        traitlets.link((self.state, "family"), (self.family, "value"))
        traitlets.dlink((self.state, "error"), (self.tokens, "error"))
        WORKER.run_here(self._draw, self.state)
        self._on_drawn()
        self.state.observe(self._on_choice, names=["family", "seed"])
        self.state.observe(self._on_drawn, names="drawn")
        self.colour.observe(self._on_colour, names="value")
        self.more.on_click(self._on_more)

    @guarded
    def _on_choice(self, change: Any) -> None:
        WORKER.submit(self._draw, self.state)

    @guarded
    def _on_more(self, button: ipywidgets.Button) -> None:
        self.state.seed += 1

    @guarded
    def _on_colour(self, change: Any) -> None:
        if change.new is not None:
            self.state.colour = change.new
            self._paint()

    @guarded
    def _on_drawn(self, change: Any = None) -> None:
        documents, surprise = self.state.drawn
        labels = []
        for name, column in documents.labels.items():
            carried = sorted({code for row in column.codes.tolist() for code in row if code})
            labels += [f"{name}: {column.names[code]}" for code in carried]
        wanted = self.state.colour  # the new list forgets it
        self.colour.options = [*surprise, *labels]
        self.colour.value = wanted if wanted in self.colour.options else EXACT
        self.state.colour = self.colour.value
        self._paint()

    def _draw(self, job: Job) -> None:
        settings: dict[str, Any] = {"split": "test", "seed": self.state.seed}
        if self.state.family == EVERY:
            each = [self.language.documents(1, families=[name], **settings) for name in self.language.families]
            documents = Documents.cat(each)
        else:
            documents = self.language.documents(self.n, families=[self.state.family], **settings)
        surprise: dict[str, list[Tensor]] = {EXACT: []}
        logprobs = None
        if self.model is not None:
            surprise |= {MODEL: [], BEYOND: []}
            logprobs = self.model(documents.tokens.to(next(self.model.parameters()).device)).log_softmax(-1).cpu()
        for i in range(len(documents)):
            if job.cancel.is_set():
                return
            ids = documents.tokens[i, : documents.lengths[i]]
            exact = -self.language.next_token(ids)[:-1].gather(1, ids[1:, None])[:, 0].log()
            surprise[EXACT].append(exact)
            if logprobs is not None:
                model = -logprobs[i, : len(ids) - 1].gather(1, ids[1:, None])[:, 0]
                surprise[MODEL].append(model)
                surprise[BEYOND].append(model - exact)
        job.post(1.0, drawn=(documents, surprise))

    def _paint(self) -> None:
        documents, surprise = self.state.drawn
        colour = self.state.colour
        spans = [slice(1, int(length)) for length in documents.lengths]
        if colour in surprise:
            values = surprise[colour]
        else:
            name, value = colour.split(": ", 1)
            values = [row[span].float() for row, span in zip(documents.labels[name].equals(value), spans, strict=True)]
        words = list(self.language.vocabulary)
        tokens = [[words[t] for t in row[span].tolist()] for row, span in zip(documents.tokens, spans, strict=True)]
        families = documents.labels["family"]
        titles = [families.names[int(codes[1])] for codes in families.codes]
        label = f"{colour} (nats)" if colour in surprise else colour
        self.tokens.show(tokens, values, titles=titles if self.state.family == EVERY else (), label=label)

    @override
    def describe(self) -> str:
        return f"{self.state.family}, seed {self.state.seed}: {self.tokens.describe()}"

    @override
    def snapshot(self) -> dict[str, Any]:
        state = {name: getattr(self.state, name) for name in ("family", "seed", "colour")}
        return rounded(state | {"rows": self.tokens.rows})

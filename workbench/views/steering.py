"""Turn one direction up and down while three texts stream: steered, unsteered, and with a random direction.

State: the values of the controls and what is shown. Engine: ``comparison``, in a job. View: ordinary controls
over a ``ColumnsView``.
"""

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
import traitlets
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from workbench.models import Site, TransformerBridge, edited
from workbench.steering import add
from workbench.views.base import Panel, rounded
from workbench.views.columns import ColumnsView, Shown
from workbench.views.comparison import Comparison, Writer, model_writer, target_set
from workbench.views.jobs import WORKER, Job, JobState, guarded


class Texts(NamedTuple):
    """What the three columns hold, without the prompt."""

    steered: str
    unsteered: str
    random: str


class SteeringState(JobState):
    """The values of the controls and what is shown."""

    prompt = traitlets.Unicode()
    strength = traitlets.Float()
    seed = traitlets.Int()
    shown = traitlets.Instance(Shown, args=())


def steering_panel(
    model: TransformerBridge,
    *,
    site: Site,
    direction: Float[Tensor, " d_model"],
    prompt: str,
    unit: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    targets: Collection[int] | Collection[str] = (),
    target_name: str = "target words",
    seed: int = 0,
    max_new_tokens: int = 48,
) -> "SteeringPanel":
    """Return a panel that adds ``direction`` at ``site`` as strongly as its slider says.

    Strength s adds s · ``unit`` · (``direction`` at length 1) at every position but the first, in the prompt
    and in what is written. All three texts take the same noise, so at strength 0 they are the same.

    Args:
        model: The model.
        site: Where to add; a stream of d_model numbers.
        direction: The direction; its length is ignored.
        prompt: What the texts begin with.
        unit: The length that strength 1 adds, for instance the largest activation of a feature.
        low: Smallest strength on the slider.
        high: Largest strength on the slider.
        targets: Token ids, or words, to count and mark in the texts.
        target_name: What the targets are called.
        seed: Seed of the sampling and of the random direction.
        max_new_tokens: Length of each text.
    """
    length = float(direction.norm())
    if not 0 < length < math.inf:
        raise ValueError(f"direction must have a finite length above 0, got one of length {length:g}.")
    if len(direction) != model.cfg.d_model:
        raise ValueError(f"direction must have {model.cfg.d_model} numbers (d_model), got {len(direction)}.")
    if not 0 < unit < math.inf:
        raise ValueError(
            f"unit must be a finite length above 0, got {unit:g}; for a feature that never fires choose one by hand."
        )
    vector = direction.detach() * (unit / length)
    with edited(model, {site: add(vector)}):
        pass  # a site that the model lacks is an error here, not at the first run
    return SteeringPanel(
        model_writer(model, site, max_new_tokens),
        direction=vector,
        prompt=prompt,
        low=low,
        high=high,
        targets=targets,
        target_name=target_name,
        seed=seed,
        max_new_tokens=max_new_tokens,
        place=str(site),
    )


class SteeringPanel(Panel):
    """The panel that ``steering_panel`` returns, for any ``Writer``.

    A control that changes starts a new run at once, which cancels the one before. ``run_sync`` runs without a
    thread, for scripts and tests.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        direction: Float[Tensor, " d_model"],
        prompt: str,
        low: float = -2.0,
        high: float = 2.0,
        targets: Collection[int] | Collection[str] = (),
        target_name: str = "target words",
        seed: int = 0,
        max_new_tokens: int = 48,
        place: str = "",
    ) -> None:
        if not low < high:
            raise ValueError(f"low must be below high, got {low:g} and {high:g}.")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be 1 or more, got {max_new_tokens}.")
        self.comparison = Comparison(writer, direction, target_set(targets), target_name, max_new_tokens, place)
        self.state = SteeringState(prompt=prompt, strength=min(max(1.0, low), high), seed=seed)
        self.job: Job | None = None
        """The newest run in the background."""
        self._recorded: dict[tuple[str, int, float], Shown] = {}
        self._listening = True

        self.columns = ColumnsView()
        super().__init__([self._controls(low, high), self.columns], self.state)
        self.add_class("workbench-steering")
        traitlets.dlink((self.state, "error"), (self.columns, "error"))
        self.state.observe(self._show, names="shown")
        self.state.observe(self._on_control, names=["prompt", "strength", "seed"])

    def _controls(self, low: float, high: float) -> ipywidgets.Widget:
        wide = {"width": "auto", "min_width": "260px", "flex": "1 1 auto"}
        wrapped = {"flex_flow": "row wrap"}
        step = (high - low) / 40
        self.prompt = ipywidgets.Text(description="Prompt", continuous_update=False, layout=wide)
        self.seed = ipywidgets.FloatText(description="Seed", step=1, layout={"width": "140px"})
        self.slider = ipywidgets.FloatSlider(
            description="Strength", min=low, max=high, step=step, continuous_update=False, readout=False, layout=wide
        )
        # Not bounded boxes, nor one for integers: they would silently turn 5 into 2, and 2.5 into 2.
        self.number = ipywidgets.FloatText(description="Strength as a number", step=step, layout={"width": "72px"})
        self.number.add_class("workbench-unlabelled")
        self.generate = ipywidgets.Button(description="Generate", tooltip="Write the three texts again")
        self.cancel = ipywidgets.Button(description="Cancel", tooltip="Stop writing")
        progress = ipywidgets.FloatProgress(max=1.0, layout={"width": "auto"})

        bound = {self.prompt: "prompt", self.slider: "strength"}
        for widget, name in bound.items():
            traitlets.link((self.state, name), (widget, "value"))
        for box, name in ((self.number, "strength"), (self.seed, "seed")):
            traitlets.dlink((self.state, name), (box, "value"))
            box.observe(self._on_number, names="value")
        traitlets.dlink((self.state, "progress"), (progress, "value"))
        traitlets.dlink((self.state, "running"), (self.cancel, "disabled"), lambda running: not running)
        self.generate.on_click(self._on_generate)
        self.cancel.on_click(self._on_cancel)
        return ipywidgets.VBox(
            [
                ipywidgets.HBox([self.prompt, self.seed], layout=wrapped),
                ipywidgets.HBox([self.slider, self.number, self.generate, self.cancel], layout=wrapped),
                progress,
            ]
        )

    @guarded
    def _on_control(self, change: Any) -> None:
        if self._listening:
            self.run()

    @guarded
    def _on_number(self, change: Any) -> None:
        self._take_numbers()

    @guarded
    def _on_generate(self, button: ipywidgets.Button) -> None:
        self._take_numbers()
        self.run()

    def _take_numbers(self) -> None:
        """Take what the boxes hold, or say why not, so that none shows a number that was silently not used."""
        seed = self.seed.value
        if not (0 <= seed < 2**31 and seed == int(seed)):
            raise ValueError(f"seed must be a whole number in 0..{2**31 - 1}, got {seed:g}.")
        strength = self._reachable(self.number.value)
        self.state.seed, self.state.strength = int(seed), strength

    @guarded
    def _on_cancel(self, button: ipywidgets.Button) -> None:
        WORKER.cancel(self.state)

    def _show(self, change: Any) -> None:
        self.columns.show(self.state.shown)

    def run(self) -> Job:
        """Start a run with the present settings in the background; the one before is cancelled."""
        self.job = WORKER.submit(self._work(), self.state)
        return self.job

    def run_sync(self, strength: float | None = None) -> Texts:
        """Run here, at ``strength`` or else at the slider's, fill the panel and return the three texts."""
        if strength is not None:
            strength = self._reachable(strength)
            self._listening = False
            try:
                self.state.strength = strength
            finally:
                self._listening = True
        WORKER.run_here(self._work(), self.state)
        return Texts(*(column.text for column in self.state.shown.columns))

    def _reachable(self, strength: float | int) -> float:
        """Return ``strength`` if the slider reaches it."""
        if not self.slider.min <= strength <= self.slider.max:
            raise ValueError(
                f"strength must lie in {self.slider.min:g}..{self.slider.max:g}, the slider's range, got {strength:g}."
            )
        return float(strength)

    def _work(self) -> Callable[[Job], None]:
        settings = self.state.prompt, self.state.seed, self.state.strength

        def work(job: Job) -> None:
            finished = self.comparison.write(*settings, job)
            if finished is not None:
                self._recorded[settings] = finished

        return work

    @override
    def snapshot(self) -> dict[str, Any]:
        columns = self.state.shown.columns
        return rounded(
            {
                "prompt": self.state.prompt,
                "seed": self.state.seed,
                "strength": self.state.strength,
                "shares": {column.title: column.share for column in columns},
                "texts": {column.title: column.text for column in columns},
            }
        )

    @override
    def export_html(self, path: str | Path, *, title: str = "Steering") -> Path:
        now = (self.state.prompt, self.state.seed)
        self.columns.recorded = [self._recorded[key] for key in sorted(self._recorded) if key[:2] == now]
        return super().export_html(path, title=title)

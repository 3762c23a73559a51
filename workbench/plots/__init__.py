"""Results as matplotlib figures, each with a line of text that states what it decides.

The only room that imports matplotlib. Figures have a clear ground and colours that read on white and on black
(from Okabe and Ito 2008), so that they fit light and dark notebooks. The lines name ranks, signs and tokens rather
than decimals, so that they can be compared between machines. What a figure is claimed to show is checked on what
it draws: ``plot.claims(rises("ReLU network"))``.

=============  =====================================================================================
``plot``       ``Plot``: a figure and its line; reads back what is drawn
``claims``     ``rises``, ``falls``, ``within``, ``steady``, ``ordered``, ``above``, ``peaks``
``axes``       the ground: size, colours, names along the axes
``tokens``     ``next_tokens`` and ``token_bars``: numbers of tokens
``lines``      ``dose_response`` and ``lines``: an effect against its cause
``tables``     ``bars`` and ``heatmap``: numbers by their names
=============  =====================================================================================
"""

from workbench.plots.claims import Claim, above, falls, ordered, peaks, rises, steady, within
from workbench.plots.lines import dose_response, lines
from workbench.plots.plot import Plot
from workbench.plots.tables import bars, heatmap
from workbench.plots.tokens import next_tokens, token_bars

__all__ = [
    "Claim",
    "Plot",
    "above",
    "bars",
    "dose_response",
    "falls",
    "heatmap",
    "lines",
    "next_tokens",
    "ordered",
    "peaks",
    "rises",
    "steady",
    "token_bars",
    "within",
]

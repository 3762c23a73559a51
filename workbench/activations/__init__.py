"""Tokens to labelled, shuffled batches of activations, in memory or on disk.

``ActivationStore.collect`` runs a model over documents once and keeps one row per token: its activation at every
site asked for, the token, its position, its document and its labels. Written to a directory, the rows lie in
sharded safetensors beside a JSON manifest, memory stays bounded, and a harvest that was stopped in any way goes on
where it stood. Training takes ``store.batches``; looking takes ``store.rows``.

===============  ==========================================================================================
``sources``      documents, texts, files, data sets and token tensors, as pieces that fit the context
``harvest``      pieces to columns of rows, one window of documents at a time
``shards``       one window's columns in memory or in a file; the manifest
``store``        ``ActivationStore`` and ``Rows``
``batches``      endless shuffled batches with a position that can be restored
``statistics``   mean, norm and outliers of a site
===============  ==========================================================================================
"""

from workbench.activations.batches import Batches
from workbench.activations.statistics import Statistics
from workbench.activations.store import ActivationStore, Rows

__all__ = ["ActivationStore", "Batches", "Rows", "Statistics"]

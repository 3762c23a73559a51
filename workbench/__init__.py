"""A workbench for looking inside transformer language models from Jupyter.

One chain, every step visible and every claim checked: model → activations → dictionary → features → edit →
comparison. Names are imported from their module; importing ``workbench`` itself loads nothing heavy.

The map, in the order of the chain (a module imports only modules above it):

=====================  ==============================================================================
``language``           a built-in language whose features are known, with its exact oracle
``models``             load, record, edit, resume, generate: the only file that knows TransformerLens
``pretrained``         data only: the tiny model and its dictionaries, each with a card
``activations``        tokens → labelled, shuffled batches of activations, in memory or on disk
``dictionaries``       sparse dictionaries, their codes, saving and splicing; pure torch
``training``           the one training loop; takes batches and knows no language model
``geometry``           measures of clouds of activations, and toys in which their truth is known
``circuits``           hand-wired models whose circuits are known, to check methods against
``evaluation``         scorecards, supervised dictionaries, audit, nulls and controls
``steering``           directions into edits, and the random control
``exercises``          checkers and hints of the notebooks
``plots``              result → matplotlib figure with an alt-text line
``views``              result → widget
=====================  ==============================================================================
"""

__version__ = "0.1.0"

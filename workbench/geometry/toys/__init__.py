"""Experiments in which a representation and the truth about it are both known.

Each file draws data of one kind, trains a small network on it in seconds, and hands back activations with their
labels for the measures of the room. All is decided by a seed, and the global generator is left as it was.
"""

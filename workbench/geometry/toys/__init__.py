"""Experiments of seconds in which a representation and its truth are known; a seed decides all, and all else stays."""

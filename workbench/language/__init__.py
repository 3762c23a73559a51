"""The built-in language: documents whose every feature is known, and the exact truth about them.

Each family is a small probabilistic program (``families/``); one tracing engine (``engine.py``) turns the same
programs into documents, per-token labels, the exact next-token distribution, counterfactuals and tasks. Beside
the language, ``planted.py`` makes activations of a dictionary that is known. Only ``train.py`` knows of models.
"""

from workbench.language.documents import Column, Documents
from workbench.language.engine import Choice
from workbench.language.language import Language
from workbench.language.tasks import Task
from workbench.language.tokenizer import build_tokenizer

__all__ = ["Choice", "Column", "Documents", "Language", "Task", "build_tokenizer"]

"""The families of the language: each a small probabilistic program, each also a task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.language.engine import Step


@dataclass(frozen=True)
class TaskSpec:
    """How a family becomes a task: what is asked, and what to change to make the answer change."""

    slot: str
    """The ``slot`` label of the tokens that are asked for."""

    change: str
    """The choice whose other values make the counterfactual pair."""

    several: bool = False
    """Whether several answers may come, so that a foil has to be one that the prompt makes less likely."""

    pairs: Callable[[Any, Any], bool] = lambda chosen, other: True
    """Which values the choice may be changed between, so that one thing differs in a pair and not two."""


@dataclass(frozen=True)
class Family:
    """One family: its program and its tasks."""

    name: str
    start: Step
    """The program's first step; it takes the tracer alone."""

    tasks: Mapping[str, TaskSpec]
    weight: float = 1.0
    """Share of the documents of the language, relative to the other families."""


def families(seed: int, shortcut: float) -> tuple[Family, ...]:
    """Build every family of the language with this seed."""
    from workbench.language.families import (
        agreement,
        brackets,
        calendar,
        code,
        docstring,
        facts,
        functions,
        greater_than,
        indirect_object,
        lists,
        machine,
        map,
        professions,
        speakers,
        stories,
        taxonomy,
    )

    modules = (stories, agreement, indirect_object, functions, facts, lists, taxonomy)
    modules += (greater_than, docstring, calendar, speakers, brackets, machine, map, code)
    return (*(module.build(seed) for module in modules), professions.build(seed, shortcut))

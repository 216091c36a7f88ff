"""Names that tell kernels apart which differ in what they are specialised on alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..kernels.ahead import Job

ABSENT = "none"


def told_apart(jobs: list[Job]) -> list[Job]:
    """The same jobs; where several have one name, each with as few settings as tell it from the
    others: `decode attend`, twice, becomes `decode attend, tokens 1` and `decode attend, tokens 8`.
    """
    named: dict[str, list[int]] = {}
    for index, job in enumerate(jobs):
        named.setdefault(job.name, []).append(index)
    found = list(jobs)
    for name, indices in named.items():
        for index, more in zip(indices, _settings([jobs[i] for i in indices]), strict=True):
            found[index] = replace(jobs[index], name=", ".join([name, *more]))
    return found


def _settings(jobs: list[Job]) -> list[list[str]]:
    """Of each job what tells it from the others; nothing where it is alone."""
    traits = [_traits(job) for job in jobs]
    left = list(dict.fromkeys(key for each in traits for key in each))
    chosen: list[str] = []
    while len(_classes(traits, chosen)) < len(_classes(traits, [*chosen, *left])):
        best = max(left, key=lambda key: len(_classes(traits, [*chosen, key])))
        chosen.append(best)
        left.remove(best)
    return [[_spelled(key, each.get(key, ABSENT)) for key in chosen] for each in traits]


def _classes(traits: list[dict[str, str]], keys: Iterable[str]) -> set[tuple[str, ...]]:
    """What jobs look like by some traits alone."""
    return {tuple(each.get(key, ABSENT) for key in keys) for each in traits}


def _traits(job: Job) -> dict[str, str]:
    """Constants by name, then the types of arguments; an argument left out is a constant None."""
    constants = {key: str(x).lower() for key, x in job.constants.items() if x is not None}
    return constants | dict(job.types) | {key: str(x) for key, x in job.options.items()}


def _spelled(key: str, value: str) -> str:
    name = key.removesuffix("_ptr").lower()
    if not key.endswith("_ptr"):
        return f"{name} {value}"
    return f"no {name}" if value == ABSENT else f"{name} {value.removeprefix('*')}"

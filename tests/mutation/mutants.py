"""The mutants of a file, by mutmut, and the file with all of them in it."""

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libcst as cst
from mutmut.mutation.file_mutation import (
    Mutation,
    combine_mutations_to_source,
    create_mutations,
    deep_replace,
    group_by_top_level_node,
)

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """`name` within `module`; `change` is what it does to the file, as two kinds of lines."""

    module: str
    name: str
    change: str

    @property
    def function(self) -> str:
        """The mangled name of the function that it's a mutant of."""
        return self.name.rpartition("__mutmut_")[0]

    @property
    def place(self) -> str:
        """`file:function`, as a person would say it."""
        return (
            f"{self.module.replace('.', '/')}.py:{re.split('ǁ|x_', self.function, maxsplit=2)[-1]}"
        )


def module_of(file: str) -> str:
    """`accounts.tokens` for `accounts/tokens.py`."""
    return file.removesuffix(".py").replace("/", ".")


def _is_wording(mutation: Mutation) -> bool:
    """Whether it changes a sentence alone: tests of decisions don't spell out what is said."""
    node = mutation.original_node
    return isinstance(node, cst.SimpleString | cst.FormattedString | cst.ConcatenatedString) and (
        " " in cst.Module([]).code_for_node(node)
    )


def _change(function: cst.CSTNode, mutation: Mutation) -> str:
    module = cst.Module([])
    mutated = deep_replace(function, mutation.original_node, mutation.mutated_node)
    assert isinstance(mutated, cst.CSTNode)
    lines = difflib.unified_diff(
        module.code_for_node(function).splitlines(),
        module.code_for_node(mutated).splitlines(),
        lineterm="",
        n=0,
    )
    return "\n".join(
        f"{line[0]} {line[1:].strip()}"
        for line in lines
        if not line.startswith(("---", "+++", "@@"))
    )


def mutate(file: str) -> tuple[str, list[Mutant]]:
    """The source of this file with all of its mutants, and these."""
    module, found, classes, functions = create_mutations(file, (ROOT / file).read_text())
    kept = [each for each in found if not _is_wording(each)]
    mutated = combine_mutations_to_source(module, kept, classes, functions)
    # In the order in which mutmut numbers them: by function as these stand, then as found.
    changes: dict[str, list[str]] = {}
    for function, mutations in group_by_top_level_node(kept).items():
        if not isinstance(function, cst.FunctionDef):
            continue
        changes.setdefault(function.name.value, []).extend(
            _change(function, each) for each in mutations
        )
    mutants = []
    for name in mutated.mutant_names:
        function_name = re.split("ǁ|x_", name.rpartition("__mutmut_")[0], maxsplit=2)[-1]
        function_name = function_name.rpartition("ǁ")[2]
        mutants.append(Mutant(module_of(file), name, changes[function_name].pop(0)))
    return mutated.code, mutants


# What the mutated modules ask at each call.
hits: set[tuple[str, str]] = set()
active: tuple[str, str] | None = None


def activate(mutant: Mutant | None) -> None:
    """From now on calls go to this mutant; None: to what was written."""
    global active
    active = None if mutant is None else (mutant.module, mutant.name)


def trampoline(mutants: dict[str, Any], is_classmethod: bool = False) -> Callable[[Any], Any]:
    """Instead of mutmut's, which asks the environment at each call."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            chosen = original = mutants["_mutmut_orig"]
            hits.add((function.__module__, original.__name__.removesuffix("__mutmut_orig")))
            if active is not None and active[0] == function.__module__:
                chosen = mutants.get(active[1], original)
            if is_classmethod:
                return getattr(args[0], chosen.__name__)(*args[1:], **kwargs)
            return chosen(*args, **kwargs)

        return call

    return decorate

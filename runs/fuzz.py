"""Mutated input: `python -m runs.fuzz --cases 2000 --seed 0` counts what is accepted, what is refused, and what fails.

Command lines, configurations, records, checkpoints, files of data and calls of the library are changed at random, in one
process and without long training (see `runs/fuzzing/sandbox.py`). A refusal is an exit code of 2 with one sentence, or a
`ConfigError` of the library's. Anything else that is no result is a finding, and written with what reproduces it, to
`runs/results/fuzz.json` and `fuzz.md`.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl_taskmet.core.settings import ConfigError
from mbrl_taskmet.runner.command import command
from runs import trials
from runs.fuzzing.judging import ANSWERS, FINDINGS, Case, judge

if TYPE_CHECKING:
    from runs.fuzzing.sandbox import Sandbox

LIMIT = 10.0
"""Seconds that a case may take."""
Cases = Callable[[int, int, "Sandbox"], Iterator[Case]]
"""(number of cases, seed, sandbox) → cases, each made in the sandbox when it is asked for."""


@command
def main(argv: list[str] | None = None) -> int:
    """Try the cases and write what they came to; 1 if there is a finding."""
    options = trials.read(argv, "fuzz", __doc__ or "", "cases", 2000, "mutations")
    found = fuzz(options.cases, options.seed, kinds())
    trials.write(options.output, "fuzz", found, told)
    return 1 if found["findings"] else 0


def kinds() -> dict[str, Cases]:
    """What makes the cases of each kind.

    Raises:
        ConfigError: hypothesis is missing.
    """
    try:
        from runs.fuzzing import calls, commands, files
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing; install the extra: pip install '.[test]'") from None

    def by_chance(make: Callable[[Iterator[random.Random], Sandbox], Iterator[Case]]) -> Cases:
        def cases(count: int, seed: int, sandbox: Sandbox) -> Iterator[Case]:
            return make((random.Random(f"{make.__name__} {seed} {number}") for number in range(count)), sandbox)

        return cases

    return {
        "command": commands.cases,
        "configuration": by_chance(files.configurations),
        "record": by_chance(files.records),
        "checkpoint": by_chance(files.checkpoints),
        "data": by_chance(files.data),
        "call": calls.cases,
    }


def fuzz(cases: int, seed: int, kinds: dict[str, Cases], limit: float = LIMIT) -> dict[str, Any]:
    """The outcomes of the cases, equally many of each kind.

    Args:
        cases: how many.
        seed: of the mutations.
        kinds: what makes them.
        limit: seconds that one may take.
    """
    from runs.fuzzing.sandbox import Sandbox

    begin, counts, findings = time.monotonic(), {kind: Counter[str]() for kind in kinds}, list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder, Sandbox(Path(folder)).entered() as sandbox:
        share = -(-cases // len(kinds))
        makers = {kind: make(share, seed, sandbox) for kind, make in kinds.items()}
        for number, kind in enumerate(itertools.islice(itertools.cycle(kinds), cases)):
            sandbox.fresh()
            case = next(makers[kind], None)
            if case is None:  # hypothesis has no other
                continue
            answer, printed = judge(case, sandbox.root, limit)
            counts[kind][answer] += 1
            if answer in FINDINGS:
                findings.append({"case": number, "kind": kind, "finding": answer, "input": case.told, "printed": printed})
                print(f"case {number}, {kind}: {answer}: {case.told}: {printed}", file=sys.stderr, flush=True)
    return {
        "cases": sum(map(Counter.total, counts.values())), "seed": seed,
        "counts": {kind: dict(sorted(count.items())) for kind, count in counts.items()},
        "findings": findings, "minutes": (time.monotonic() - begin) / 60,
    }  # fmt: skip


def told(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    total = Counter[str]()
    lines = []
    for kind, count in found["counts"].items():
        total.update(count)
        cells = [str(count.get(answer, 0)) for answer in ANSWERS] + [str(sum(count.get(name, 0) for name in FINDINGS))]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    each = "".join(f"- case {one['case']}, {one['kind']}, {one['finding']}: `{one['input']}`: {one['printed']}\n"
                   for one in found["findings"])  # fmt: skip
    meanings = "\n".join(f"- {name}: {meaning}, {total[name]} times" for name, meaning in FINDINGS.items())
    rows = "\n".join(lines)
    return f"""# Mutated input

Of {found["cases"]} mutated inputs {total["accepted"]} were accepted, {total["refused"]} refused in one sentence, and
{len(found["findings"])} are findings.

| kind | accepted | refused | findings |
|---|---|---|---|
{rows}

A finding is one of these:

{meanings}

{each}
Made by `python -m runs.fuzz --cases {found["cases"]} --seed {found["seed"]}` in {found["minutes"]:.1f} minutes.
"""


if __name__ == "__main__":
    sys.exit(main())

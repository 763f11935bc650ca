"""Files that were damaged, and the commands that read them."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mbrl_taskmet.runner.records import read_rows
from runs.fuzzing.judging import Case
from runs.fuzzing.mutating import damage_file, damage_tree
from runs.fuzzing.sandbox import CLOCK, Sandbox

Chances = Iterator[random.Random]
AGENTS, CELLS = ("agent", "interrupted"), ("cell", "undecided")
PORTFOLIO = ["--task", "portfolio", "--method", "mse", "--train", "4", "--validation", "4", "--test", "4"]
BUDGET = ["--task", "budget", "--method", "mse", "--train", "4", "--validation", "4", "--test", "4"]


def configurations(chances: Chances, sandbox: Sandbox) -> Iterator[Case]:
    """A run's `config.json`."""
    for chance in chances:
        run = sandbox.copy(chance.choice(AGENTS + CELLS))
        damage = damage_file(run / "config.json", chance)
        argv = ["--resume", str(run)]
        if chance.random() < 0.2:
            yield _case("configuration", damage, _plot, [str(run)], sandbox, sandbox.cwd / "comparison.png")
        else:
            yield _case("configuration", damage, _main_of(run), argv, sandbox, run)


def records(chances: Chances, sandbox: Sandbox) -> Iterator[Case]:
    """What a run tells of itself, read by its resume, by the comparison of runs, and by an experiment."""
    for chance in chances:
        if chance.random() < 0.2:
            yield _of_block(chance, sandbox)
            continue
        run = sandbox.copy(chance.choice(AGENTS + CELLS))
        names = ("metrics.jsonl", "summary.json", "result.json")
        path = chance.choice(sorted(path for name in names for path in run.rglob(name)))
        damage = f"{path.relative_to(run)}: {damage_file(path, chance)}"
        if run.name in AGENTS and chance.random() < 0.2:
            yield _case("record", damage, _plot, [str(run)], sandbox, sandbox.cwd / "comparison.png")
        else:
            yield _case("record", damage, _main_of(run), ["--resume", str(run)], sandbox, run)


def checkpoints(chances: Chances, sandbox: Sandbox) -> Iterator[Case]:
    """What a run goes on from: it ends like the undisturbed one, or the damage is named."""
    for chance in chances:
        run = sandbox.copy(chance.choice(("interrupted", "interrupted", "undecided")))
        place = next(run.rglob("checkpoints"))
        damage = damage_tree(place, chance)
        yield _case(
            "checkpoint", damage, _main_of(run), ["--resume", str(run)], sandbox, run, partial(_as_before, run, sandbox)
        )


def data(chances: Chances, sandbox: Sandbox) -> Iterator[Case]:
    """Prices, click rates, the tables of reports, and what a decision task has learned."""
    for chance in chances:
        how = chance.choice(("prices.csv", "rates.csv", "rates.npz", "report", "report", "learned"))
        if how == "learned":
            run = sandbox.copy("cell")
            damage = f"learned.npz: {damage_file(next(run.rglob('learned.npz')), chance)}"
            yield _case("data", damage, _main_of(run), ["--resume", str(run)], sandbox, run)
        elif how == "report":
            yield _of_report(chance, sandbox)
        else:
            path = sandbox.copy(how)
            damage = f"{how}: {damage_file(path, chance)}"
            if chance.random() < 0.5:
                damage += f"; {damage_file(path, chance)}" if path.is_file() and not path.is_symlink() else ""
            argv = [*PORTFOLIO, "--prices", str(path)] if how == "prices.csv" else [*BUDGET, "--rates", str(path)]
            yield _case("data", damage, _decide, argv, sandbox, sandbox.cwd / "runs")


def _case(
    kind: str, damage: str, main: tuple[str, Callable[[list[str]], int]], argv: list[str], sandbox: Sandbox, writes: Path,
    check: Callable[[], str | None] = lambda: None,
) -> Case:  # fmt: skip
    name, call = main
    told = f"{damage}: python -m {name} {shlex.join(argv)}".replace(str(sandbox.case), "{case}")
    writes_too = (writes.with_suffix(".svg"),) if writes.suffix else ()
    return Case(kind, told, partial(call, argv), writes=(writes, *writes_too), check=check)


def _main_of(run: Path) -> tuple[str, Callable[[list[str]], int]]:
    from agents.command import main

    return ("agents.gymnax", partial(main, None)) if run.name in AGENTS else _decide


def _call_decide(argv: list[str]) -> int:
    from decision_tasks.command import main

    return main(argv)


def _call_plot(argv: list[str]) -> int:
    from mbrl_taskmet.plotting import main

    return main(argv)


_decide = ("decision_tasks", _call_decide)
_plot = ("mbrl_taskmet.plotting", _call_plot)


def _experiment(name: str) -> tuple[str, Callable[[list[str]], int]]:
    import importlib

    from runs.experiment import main

    return f"runs.{name}", partial(main, importlib.import_module(f"runs.{name}").EXPERIMENT)


def _of_block(chance: random.Random, sandbox: Sandbox) -> Case:
    """A block of an experiment, before its report."""
    name = chance.choice(("distractors", "solvers"))
    logs = sandbox.copy("logs") / name
    path = chance.choice(sorted(path for path in logs.rglob("*") if path.is_file()))
    damage = f"{path.relative_to(logs)}: {damage_file(path, chance)}"
    return _case("record", damage, _experiment(name), ["--report", "--logdir", str(logs)], sandbox, logs)


def _of_report(chance: random.Random, sandbox: Sandbox) -> Case:
    """A report that is added to."""
    name = chance.choice(("distractors", "solvers"))
    output = sandbox.copy("reports") / name
    read = ("curves.csv.gz", "runs.json", "weights.csv.gz", "gradients.csv")
    path = chance.choice([output / file for file in read if (output / file).exists()])
    damage = f"{path.relative_to(output)}: {damage_file(path, chance)}"
    argv = ["--report", "--logdir", str(sandbox.case / "none"), "--output", str(output)]
    return _case("data", damage, _experiment(name), argv, sandbox, output)


def _as_before(run: Path, sandbox: Sandbox) -> str | None:
    """What of a run's end is not as in the one that nobody damaged."""
    whole = sandbox.base / ("agent" if run.name in AGENTS else "cell")
    if run.name in AGENTS:
        return None if _timeless(read_rows(run)) == _timeless(read_rows(whole)) else "the record is another"
    mine, theirs = (json.loads(next(place.rglob("result.json")).read_text()) for place in (run, whole))
    return None if _timeless([mine]) == _timeless([theirs]) else "the result is another"


def _timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]

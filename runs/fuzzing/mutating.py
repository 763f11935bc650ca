"""Damage to files: bytes, the values in JSON and CSV, and the files of a directory."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

JSON: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e308, 2**31, 2**63, 10**400, float("nan"), float("inf"), "", "x", "nan", "../x",
    "/", "a\nb", "\u2028", "os:path", "Walk", [], {}, [[]], [None], {"": 0}, [1, 2], ["a"], {"format": 1},
)  # fmt: skip
CELLS = ("", " ", "nan", "inf", "-inf", "-1", "0", "1e400", "1e-400", "x", '"', '"a"', "1,2", "1_0", "٣", "\x00", "a\nb",
         "2024-13-01", "1e30", "0x1", "True", "null", "a b", "9" * 400)  # fmt: skip


def damage_file(path: Path, chance: random.Random) -> str:
    """Change a file by its kind, and say how."""
    how = chance.random()
    if how < 0.6 and path.suffix in (".json", ".jsonl") and (damage := _damage_json(path, chance)):
        return damage
    if how < 0.6 and ".csv" in path.suffixes:
        return _damage_cells(path, chance)
    if how > 0.9:
        return _replace(path, chance)
    damage, data = _damage_bytes(_read(path), chance)
    _write(path, data)
    return damage


def damage_tree(directory: Path, chance: random.Random) -> str:
    """Change something below a directory, and say what."""
    below = sorted(directory.rglob("*"))
    files, folders = [path for path in below if path.is_file()], [path for path in below if path.is_dir()]
    how = chance.random()
    if how < 0.6:
        path = chance.choice(files)
        return f"{path.relative_to(directory)}: {damage_file(path, chance)}"
    if how < 0.7:
        one, other = chance.sample(files, 2)
        data = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)
        return f"{one.relative_to(directory)} and {other.relative_to(directory)} swapped"
    path = chance.choice(folders)
    if how < 0.8:
        shutil.rmtree(path)
        return f"{path.relative_to(directory)} removed"
    name = chance.choice(["1", "0200", "999", "-1", "0-1", "5-3", "x", "200.orbax-checkpoint-tmp-1", "٣", " 1", "1" * 60])
    target = path.with_name(name)
    if target.exists():
        return "nothing"
    if how < 0.9:
        path.rename(target)
        return f"{path.relative_to(directory)} named {name}"
    shutil.copytree(path, target) if chance.random() < 0.5 else target.write_text("stray")
    return f"{target.relative_to(directory)} added"


def _damage_json(path: Path, chance: random.Random) -> str | None:
    """Another value somewhere in a JSON file, or in one of its lines; None where it is none."""
    whole = path.suffix == ".json"
    try:
        lines = [json.loads(text) for text in ([path.read_text()] if whole else path.read_text().splitlines())]
    except ValueError:
        return None
    number = chance.randrange(len(lines))
    damage = _damage_value(lines[number], chance, "" if whole else f"line {number + 1}")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return damage


def _damage_value(value: Any, chance: random.Random, where: str) -> str | None:
    if not isinstance(value, (dict, list)) or not value:
        return None
    key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
    if chance.random() < 0.6 and (damage := _damage_value(value[key], chance, f"{where}.{key}")):
        return damage
    how = chance.random()
    if how < 0.15:
        del value[key]
        return f"{where}.{key} removed"
    if how < 0.25 and isinstance(value, dict):
        value[str(key) + "x"] = value.pop(key)
        return f"{where}.{key} named {key}x"
    value[key] = chance.choice(JSON)
    return f"{where}.{key} = {str(value[key])[:40]!r}"


def _damage_cells(path: Path, chance: random.Random) -> str:
    """A cell, a line or a column of a CSV file."""
    rows = [line.split(",") for line in _read(path).decode("latin-1").splitlines()] or [[""]]
    row = chance.randrange(len(rows))
    column = chance.randrange(len(rows[row]))
    how, damage = chance.random(), f"row {row + 1}"
    if how < 0.55:
        rows[row][column] = chance.choice(CELLS)
        damage += f", column {column + 1} = {rows[row][column][:40]!r}"
    elif how < 0.65:
        rows.insert(row, rows[chance.randrange(len(rows))])
        damage += " twice"
    elif how < 0.75:
        del rows[row]
        damage += " removed"
    elif how < 0.85:
        rows[row].append("1")
        damage += " longer"
    elif how < 0.9:
        rows = rows[:row]
        damage += " and what follows removed"
    else:
        cell = chance.choice(CELLS)
        rows = [row if number == 0 else [*row[:column], cell, *row[column + 1 :]] for number, row in enumerate(rows)]
        damage = f"column {column + 1} = {cell[:40]!r}"
    _write(path, ("\n".join(map(",".join, rows)) + "\n").encode("latin-1", "replace"))
    return damage


def _damage_bytes(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    first, last = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    noise = chance.randbytes(chance.randint(1, 8))
    ways: list[tuple[str, Callable[[], bytes]]] = [
        (f"cut at byte {first}", lambda: data[:first]),
        (f"bytes {first} to {last} removed", lambda: data[:first] + data[last:]),
        (f"bytes {first} to {last} twice", lambda: data[:last] + data[first:]),
        (f"{noise.hex()} at byte {first}", lambda: data[:first] + noise + data[first + len(noise) :]),
        (f"{noise.hex()} put in at byte {first}", lambda: data[:first] + noise + data[first:]),
        (f"a bit of byte {first}", lambda: _flipped(data, first, chance)),
        ("empty", lambda: b""),
        ("zeros", lambda: bytes(len(data))),
        ("BOM", lambda: b"\xef\xbb\xbf" + data),
        ("CRLF", lambda: data.replace(b"\n", b"\r\n")),
        ("UTF-16", lambda: data.decode("latin-1").encode("utf-16")),
        ("twice", lambda: data + data),
        ("deep", lambda: b"[" * 100_000),
    ]  # fmt: skip
    damage, change = chance.choice(ways)
    return damage, change()


def _flipped(data: bytes, place: int, chance: random.Random) -> bytes:
    return data[:place] + bytes(byte ^ 1 << chance.randrange(8) for byte in data[place : place + 1]) + data[place + 1 :]


def _replace(path: Path, chance: random.Random) -> str:
    """Something else in the place of a file."""
    path.unlink()
    how = chance.choice(["removed", "a directory", "a link to a file beside", "a link to nothing", "a pipe", "unreadable"])
    canary = next(place for place in path.parents if (place / "canary").is_dir()) / "canary"
    if how == "a directory":
        path.mkdir()
    elif how == "a link to a file beside":
        path.symlink_to(canary / "keep")
    elif how == "a link to nothing":
        path.symlink_to(canary / "nothing")
    elif how == "a pipe":
        os.mkfifo(path)
    elif how == "unreadable":
        path.write_bytes(b"\xff\xfe\x00")
    return how


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".csv.gz") else data


def _write(path: Path, data: bytes) -> None:
    """Write the contents of a file, compressed where its name says so."""
    path.write_bytes(gzip.compress(data) if path.name.endswith(".csv.gz") else data)

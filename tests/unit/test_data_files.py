"""Files of the user's data: what is wrong is said in a sentence, and a run goes on only with the file it began with."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision_tasks import MSE, Budget, CellSettings, Portfolio, run
from decision_tasks.command import main
from decision_tasks.prices import check_prices, parse_prices, read_prices
from decision_tasks.rates import read_rates
from mbrl_taskmet.core.settings import ConfigError

DAYS = [f"2024-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)]
WIDE = "Date,A,B\n" + "".join(f"{day},{10 + i % 7},{20 + i % 5}\n" for i, day in enumerate(DAYS))
LONG = "date,ticker,close\n" + "".join(f"{day},A,10\n{day},B,20\n" for day in DAYS[:30])
QUOTES = "".join(f"{day},100.1,101.1,99.1,100.3,100.2,{1281597 + i}\n" for i, day in enumerate(DAYS[:30]))
RATES = "".join(",".join(f"{0.01 + 0.001 * (i + j * j):.4f}" for j in range(12)) + "\n" for i in range(8))
TINY = ["--method", "mse", "--datasets", "1", "--seeds", "1", "--steps", "100"]
SMALL_BUDGET = ["--task", "budget", *TINY, "--train", "10", "--validation", "5", "--test", "10"]
SMALL_PORTFOLIO = ["--task", "portfolio", *TINY, "--train", "20", "--validation", "10", "--test", "10"]


def refusal(call: Callable[[], Any]) -> str:
    """What a call is refused with, one line of text that a terminal shows as it is."""
    with pytest.raises(ConfigError) as refused:
        call()
    sentence = str(refused.value)
    assert sentence.isprintable() and len(sentence) < 500
    return sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Date,Open,High,Low,Close,Adj Close,Volume\n" + QUOTES, "has the columns Open, High, Low, Close, Adj Close, Volume"),
        (
            "Date,Close,Volume\n" + "".join(f"{day},100.1,1281597\n" for day in DAYS[:30]),
            "which are one stock's and no tickers; give a date and then a column of closing prices for each",
        ),
        ("Date,Open,High,Low\n" + "".join(f"{day},1,2,1\n" for day in DAYS[:30]), "has the columns Open, High, Low, which"),
        ("Date,Symbol,Open,Close\n" + "".join(f"{day},A,1,2\n" for day in DAYS[:30]), "give three columns: date, ticker and"),
        (LONG + f"{DAYS[3]}, A,11\n", f"has A on {DAYS[3]} twice, again in row 62; give one price a day"),
        (LONG + f"{DAYS[3]},,11\n", "has '' for a ticker in row 62"),
        (WIDE.replace("Date,A", 'Date,"A'), "cannot be read from row 1 on (unexpected end of data); correct its quotes"),
        (WIDE.replace("Date,A", 'Date,"A') + "x" * 150_000, "cannot be read from row 1 on (field larger than field limit"),
        (WIDE.replace("02,11,", '02,"11"x,'), "cannot be read from row 3 on (',' expected after '\"'); correct its quotes"),
        (WIDE.replace("01-03,12", "01-03,x").replace("2024-01-02", '""\n""\n\n2024-01-02'), "has 'x' for A in row 7; give a"),
        (WIDE.replace("\n", "\r\n").replace("01-03,12", "01-03,x"), "has 'x' for A in row 4"),
        (WIDE.replace("\n", "\r").replace("01-03,12", "01-03,x"), "has 'x' for A in row 4"),
        (WIDE.replace("01-03,12", "01-03,1e300"), "has prices of A from 10 to 1e+300; give them between 1e-30 and 1e+30"),
        (WIDE.replace("01-03,12", "01-03,1e-20"), "the highest at most 1e+12 times the lowest"),
        (WIDE.replace("01-03,12", "01-03,inf"), "has the price inf for A in row 4; give a number above 0"),
        (WIDE.replace("01-03,12", "01-03,0"), "has the price 0 for A in row 4; give a number above 0"),
        (WIDE.replace("01-03,12", "01-03,1_2"), "has '1_2' for A in row 4; give a number"),
        (WIDE.replace("01-03,12", "01-03," + 1000 * "9x"), "9x'… for A in row 4; give a number"),
        (WIDE.replace("01-03,12", "01-03,\x1b[2J"), r"has '\x1b[2J' for A in row 4; give a number"),
        (WIDE.replace("2024-01-03", "2024-01-03 nonsense"), "has '2024-01-03 nonsense' for a date in row 4"),
        (WIDE.replace("2024-01-03", "2024-01-02 16:00"), "has the date 2024-01-02 twice, again in row 4"),
        (WIDE.replace("Date,A", "Date,"), "has '' for the name of column 2; name its ticker"),
        (WIDE.replace("Date,A", 'Date,"A\nZ"'), r"has 'A\nZ' for the name of column 2; name its ticker"),
        ("Date,A,B\n" + "".join(f"{day},nan,1\n" for day in DAYS[:30]), "lacks prices on 30 of 30 days, most of them of A"),
    ],
)  # fmt: skip
def test_prices_that_are_none_are_refused(text: str, sentence: str) -> None:
    printed = refusal(lambda: parse_prices(text, "prices.csv"))
    assert sentence in printed and printed.startswith("prices.csv ")


def test_what_other_programs_write_is_read(tmp_path: Path) -> None:
    plain = parse_prices(WIDE, "plain")
    head, *rows = WIDE.splitlines()
    path = tmp_path / "prices.csv"
    for text in (
        "\ufeff" + WIDE,
        WIDE.replace("\n", "\r\n"),
        "\n".join([head, *reversed(rows)]),
        WIDE.replace(",", " , ").replace("2024-01-03", "2024-01-03 00:00:00-05:00"),
        WIDE.replace("Date,A", 'Date,"A"'),
    ):
        path.write_bytes(text.encode())
        read = read_prices(str(path))
        np.testing.assert_array_equal(read.values, plain.values)
        assert (read.tickers, read.dates) == (plain.tickers, plain.dates)
    assert parse_prices(WIDE.replace("Date,A,B", "Date,LOW,OPEN"), "lowe's and opendoor").tickers == ("LOW", "OPEN")


@pytest.mark.parametrize(("columns", "days"), [(100_000, 3), (3, 100_000)])
def test_reading_prices_takes_a_time_that_is_linear_in_the_file(columns: int, days: int) -> None:
    dates = np.datetime64("1700-01-01") + np.arange(days)
    text = "date," + ",".join(f"T{i}" for i in range(columns)) + "\n"
    text += "".join(f"{day}" + ",10.5" * columns + "\n" for day in dates)
    start = time.process_time()
    assert parse_prices(text, "large").values.shape == (days, columns)
    assert time.process_time() - start < 30  # a second or two; quadratic in 100 000 it was hours


@pytest.mark.parametrize(
    ("prices", "sentence"),
    [
        (np.zeros((900, 5)), "has prices of stock 1 from 0 to 0"),
        (np.full((900, 5), np.nan), "has prices of stock 1 from nan to nan"),
        (np.ones(900), "give numbers, days × stocks"),
        (np.full((900, 5), "1"), "give numbers, days × stocks"),
    ],
)
def test_prices_as_an_array_are_checked_like_those_of_a_file(prices: np.ndarray, sentence: str) -> None:
    assert sentence in refusal(lambda: Portfolio(prices=prices))
    check_prices(np.ones((900, 5)))


def test_rates_as_an_array_are_checked_like_those_of_a_file() -> None:
    table: Any
    for table, sentence in (
        (np.zeros((8, 12)), "every click rate is 0"),
        (np.ones((8, 12)), "every click rate is 1"),
        ([["a"] * 12] * 8, "the click rates are [['a', 'a',"),
        ([[0.1, 0.2], [0.3]], "the click rates are [[0.1, 0.2], [0.3]]; give numbers, websites × users"),
        (np.full((8, 12), 0.05), "the click rates are the same for every website"),
        ([0.1, 0.2], "the click rates have the shape (2,)"),
    ):
        assert sentence in refusal(partial(Budget, rates=table))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0.0,0.0\n0.0,0.0\n", "every click rate is 0, as far as float32 tells, and every decision would be worth the same"),
        ("1,1\n1,1\n", "every click rate is 1, as far as float32 tells"),
        ("1e-300,1e-9\n1e-12,0\n", "every click rate is 0, as far as float32 tells"),
        ("0.1,0.2\n0.1,0.2\n", "the click rates are the same for every website"),
        ("0.1,0.2\n0.3,nan\n", "the click rate in row 2, column 2 is nan; give rates from 0 to 1"),
        ("0.1,0.2\n\n0.3,-1\n", "the click rate in row 3, column 2 is -1.0; give rates from 0 to 1"),
        ("0.1,0.2\n\n0.3,x\n", "cannot be read ('x' in row 3, column 2, is no number); give a CSV file of numbers"),
        ("a,b\n0.1,0.2\n", "cannot be read ('a' in row 1, column 1, is no number)"),
        ("0.1,0.2\n0.3\n", "has 1 cells in row 2 and 2 before it"),
        ('0.1,"0.2\n0.3,0.4\n', "cannot be read from row 1 on (unexpected end of data); correct its quotes"),
        ("", "the click rates have the shape (0, 0)"),
    ],
)
def test_rates_that_are_none_are_refused(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(text)
    assert sentence in refusal(lambda: read_rates(str(path)))


def test_rates_are_read_from_either_kind_of_file(tmp_path: Path) -> None:
    table = np.array([[float(cell) for cell in line.split(",")] for line in RATES.splitlines()])
    for name, data in {
        "bom.csv": b"\xef\xbb\xbf# rates\r\n" + RATES.replace("\n", "\r\n\r\n").encode(),
        "one.csv": RATES.encode(),
    }.items():
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read_rates(str(tmp_path / name))[0], table)
    np.savez_compressed(tmp_path / "rates.NPZ", table.astype(np.float32))
    (tmp_path / "rates.NPZ.npz").rename(tmp_path / "rates.NPZ")
    np.testing.assert_allclose(read_rates(str(tmp_path / "rates.NPZ"))[0], table, rtol=1e-6)  # float32


def _truncated(path: Path) -> None:
    np.savez(path, np.full((5, 10), 0.1))
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: np.savez(path, np.array([object()])), "cannot be read (Object arrays cannot be loaded"),
        (lambda path: np.savez(path, a=np.ones((5, 10)), b=np.ones(3)), "holds 2 arrays; give a file with one"),
        (lambda path: np.savez(path), "holds 0 arrays"),
        (lambda path: np.savez(path, np.full((5, 10, 2), 0.1)), "the click rates have the shape (5, 10, 2)"),
        (lambda path: np.savez(path, np.float64(0.1)), "the click rates have the shape ()"),
        (lambda path: np.savez(path, np.full((5, 10), 0.1 + 1j)), "cannot be read (its array is of complex128)"),
        (lambda path: np.savez(path, np.full((5, 10), "0.1")), "cannot be read (its array is of <U3)"),
        (lambda path: path.write_text(RATES), "cannot be read (File is not a zip file)"),
        (lambda path: path.write_bytes(b""), "cannot be read (File is not a zip file)"),
        (_truncated, "cannot be read (File is not a zip file)"),
    ],
)
def test_npz_files_that_hold_no_rates_are_refused(write: Callable[[Path], Any], sentence: str, tmp_path: Path) -> None:
    write(tmp_path / "rates.npz")
    assert sentence in refusal(lambda: read_rates(str(tmp_path / "rates.npz")))


@pytest.mark.parametrize("read", [read_prices, read_rates])
def test_what_is_no_regular_file_is_refused_at_once(read: Callable[[str], Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path, Path("/dev/zero")):
        assert f"{path} is not a regular file; give a CSV file of" in refusal(partial(read, str(path)))
    for text, reason in (("none", "No such file"), ("a\0b", "null byte"), ("x" * 5000, "File name too long")):
        with pytest.raises(ConfigError, match=rf"cannot be read \(.*{reason}.*\); give a CSV file of"):
            read(str(tmp_path / text))


@pytest.mark.parametrize("read", [read_prices, read_rates])
@pytest.mark.parametrize("data", ["Straße,1,2\n".encode("cp1252") * 9, WIDE.encode("utf-16")])
def test_other_encodings_are_refused(read: Callable[[str], Any], data: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(data)
    assert "cannot be read (it is no text in UTF-8)" in refusal(lambda: read(str(tmp_path / "data.csv")))


@pytest.mark.parametrize(
    ("arguments", "flag", "text", "other"),
    [
        (SMALL_BUDGET, "--rates", RATES, RATES.replace("0.0100", "0.0101")),
        (SMALL_PORTFOLIO, "--prices", WIDE, WIDE.replace("01-03,12", "01-03,13")),
    ],
)
def test_a_run_goes_on_with_the_file_it_began_with_and_no_other(
    arguments: list[str], flag: str, text: str, other: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from decision_tasks import job

    path, place = tmp_path / "data.csv", tmp_path / "run"
    path.write_text(text)
    rows_of = job.rows_of

    def interrupt(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return rows_of(*args)

    monkeypatch.setattr(job, "rows_of", interrupt)
    assert main([*arguments, flag, str(path), "--steps", "5000", "--logdir", str(tmp_path), "--name", "run"]) == 130
    monkeypatch.setattr(job, "rows_of", rows_of)
    (inputs,) = json.loads((place / "config.json").read_text())["inputs"]
    assert list(inputs) == [flag[2:]] and inputs[flag[2:]].startswith(f"{len(text)} bytes, checksum ")

    capsys.readouterr()
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    path.write_text(other)
    assert main(["--resume", str(place)]) == 2
    error = capsys.readouterr().err
    assert f"{flag} {path} is not the file that the run was started with ({len(text)} bytes" in error and error.count("\n") == 1
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before
    path.unlink()
    assert main(["--resume", str(place)]) == 2
    assert f"{flag} {path} cannot be read (No such file or directory)" in capsys.readouterr().err
    path.write_text(text)
    assert main(["--resume", str(place)]) == 0


def test_a_run_from_python_is_held_to_its_file_and_one_of_before_is_not(tmp_path: Path) -> None:
    path, place = tmp_path / "rates.csv", tmp_path / "run"

    def once() -> None:
        task = Budget(rates_file=str(path), train=10, validation=5, test=10)
        run(CellSettings(task=task, objective=MSE(), datasets=1, seeds=1, steps=100), place)

    path.write_text(RATES)
    once()
    once()  # trained already
    path.write_text(RATES.replace("0.0100", "0.0101"))
    assert "is not the file that the run was started with" in refusal(once)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "inputs": 3}))
    assert "config.json is damaged" in refusal(once)
    del config["inputs"]
    (place / "config.json").write_text(json.dumps(config))
    once()

"""Targets are judged against the best peer of each workload, by round; the table and the document say it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bench.document import BEGIN_MARK, END_MARK, replaced, section
from bench.errors import BenchError
from bench.servers import Role
from bench.statistics import Verdict
from bench.table import figures, markdown_table, number, report, text_table
from bench.targets import Outcome, best_peer, errors, judge
from bench.workloads import COMPARED, LONE, MIXED
from tests.bench.helpers import facts, results, sample


def outcome(outcomes: list[Outcome], subject: str) -> Outcome:
    return next(each for each in outcomes if subject in each.subject)


def test_the_best_peer_is_the_one_to_beat() -> None:
    run = results(150, slow=50, fast=100)
    peer = best_peer(run, MIXED, "texts_per_second", more_is_better=True)
    assert peer is not None
    assert peer.name == "fast"
    mixed = outcome(judge(run), "texts/s: mixed")
    assert (mixed.got, mixed.passed, mixed.against, mixed.finding) == ("1.50×", True, "Fast", Verdict.BETTER)


def test_losing_is_said() -> None:
    outcomes = judge(results(80, peer=100))
    mixed = outcome(outcomes, "texts/s: mixed")
    assert (mixed.passed, mixed.finding) == (False, Verdict.WORSE)
    assert outcome(outcomes, "CPU s per 1 000 texts: 16-token").passed is False


def test_every_workload_has_a_target_for_processor_time() -> None:
    subjects = [each.subject for each in judge(results(200, peer=100))]
    assert all(f"CPU s per 1 000 texts: {workload.title}" in subjects for workload in COMPARED)
    assert f"p50: {LONE.title}" in subjects


def test_without_a_peer_nothing_is_passed() -> None:
    compared = judge(results(100))[:4]
    assert [each.passed for each in compared] == [None] * 4


def test_other_precisions_are_judged_where_the_processor_has_them() -> None:
    run = results(100, peer=50)
    fast = replace(
        run,
        servers=(*run.servers, facts("ours-bf16", Role.BESIDE, cosine=0.9999)),
        samples=(*run.samples, *(sample("ours-bf16", "mixed", number, 180.0) for number in range(3))),
    )
    assert outcome(judge(fast), "texts/s in BFloat16").passed is True
    assert outcome(judge(fast), "least cosine in BFloat16").passed is True
    assert outcome(judge(fast), "texts/s in Int8").passed is None
    elsewhere = replace(fast, machine=replace(fast.machine, flags=()))
    assert outcome(judge(elsewhere), "texts/s in BFloat16").passed is None


def test_tails_connections_and_overload() -> None:
    run = results(100, peer=50)
    extra = {
        "query alone": (sample("ours", "query", 0, 200, p50=4.0),),
        "query beside passages": (sample("ours", "query", 0, 50, p50=14.0),),
        "connections": (
            sample("ours", "mixed", 0, 100, concurrency=8),
            sample("ours", "mixed", 0, 85, concurrency=512),
        ),
        "overload": (
            sample("ours", "mixed", 0, 100, p50=300.0, statuses={"200": 100, "429": 50}, refusal_p99=2.0),
            sample("ours", "mixed", 0, 100, p50=3000.0, statuses={"200": 100, "429": 50}, refusal_p99=2.0),
            sample("ours", "mixed", 0, 100, p50=300.0, statuses={"200": 100}),
        ),
    }
    outcomes = judge(replace(run, extra=extra))
    assert outcome(outcomes, "p99 of lone queries").passed is False
    assert "12.0 → 42.0 ms" in outcome(outcomes, "p99 of lone queries").got
    assert outcome(outcomes, "8 to 512 connections").passed is False
    assert [each.passed for each in outcomes if "capacity offered" in each.subject] == [True, False, False]


def test_memory_and_start() -> None:
    outcomes = judge(results(100, peer=50))
    assert outcome(outcomes, "resident memory").passed is True
    assert outcome(outcomes, "process start").got == "3.0"


def test_failed_requests_are_named() -> None:
    failing = sample("peer", "mixed", 1, 10, failures=3, statuses={"200": 100, "500": 3})
    assert errors((failing,)) == ["peer, mixed, round 2: 3 of 103 requests failed {'200': 100, '500': 3}"]


@pytest.mark.parametrize(("value", "shown"), [(1234.5, "1234"), (3.14159, "3.14"), (0.0123, "0.0123"), (math.nan, "–")])
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_tables_have_one_column_for_each_server() -> None:
    rows = figures(results(100, peer=50))
    assert list(rows[0][2:]) == ["ours", "peer", "in process"]
    assert [row[2:4] for row in rows if row[1] == "texts/s"] == [["100", "50"]] * 3
    assert len({len(row) for row in rows}) == 1
    assert text_table(rows).count("\n") == len(rows)
    assert markdown_table([["a|b"], ["c"]]) == "| a\\|b |\n| --- |\n| c |"


def test_a_busy_machine_is_warned_of() -> None:
    run = results(100, peer=50)
    busy = replace(run, samples=tuple(replace(each, foreign_share=0.3) for each in run.samples))
    assert "WARNING: the machine was busy" in report(busy, judge(busy), [])
    assert "WARNING" not in report(run, judge(run), [])


def test_only_what_is_between_the_marks_of_a_document_changes() -> None:
    text = section(results(100, peer=50), judge(results(100, peer=50)), "images/plot.svg")
    document = f"before\n{BEGIN_MARK}\nold\n{END_MARK}\nafter\n"
    new = replaced(document, text)
    assert new.startswith(f"before\n{BEGIN_MARK}\n")
    assert new.endswith(f"{END_MARK}\nafter\n")
    assert "old" not in new
    assert replaced(new, text) == new
    with pytest.raises(BenchError, match="no lines"):
        replaced("without", text)

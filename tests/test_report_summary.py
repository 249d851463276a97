"""What the summary of the report says of the runs that verdicts were made on."""

from __future__ import annotations

from analysis.claims import CLAIMS, Claim
from analysis.claims.verdict import Status, Used, Verdict
from analysis.completeness import matrix
from analysis.holdings import Library
from analysis.report.summary import heads, side_by_side, summarise

PAPERS = "Qwen3-14B_Math-CoT-20k_lr5e-5_ep8_bs256"
OTHER = "second-run"


def _verdict(claim: Claim, status: Status, *runs: str) -> Verdict:
    used = tuple(Used(run, 0, "MATH500", f"{run}.json") for run in runs)
    numbers = (None, None, None, "")
    return Verdict(claim.id, claim.title, "", "", status, *numbers, "", (), used, "measured")


def test_verdicts_on_the_papers_runs_stand_apart_from_those_on_own_runs() -> None:
    library = Library([])
    on_both, on_own, on_none = CLAIMS[:3]
    verdicts = [
        _verdict(on_both, "reproduced", f"{PAPERS}_published", OTHER),
        _verdict(on_own, "not reproduced", OTHER),
        _verdict(on_none, "no data"),
    ]
    claims = side_by_side(library, verdicts)
    papers, own = summarise(library, matrix(library), claims).groups
    words = f"measured runs of the paper ({PAPERS}_published) and runs of your own ({OTHER})"
    assert heads(claims) == {"measured": words} and papers.heading == f"Claims on {words}"
    assert papers.titles == {"reproduced": [on_both.title], "no data": [on_none.title]} and not papers.is_own
    assert own.heading == f"Claims on runs of your own ({OTHER}), none of them the paper's"
    assert own.titles == {"not reproduced": [on_own.title]} and own.is_own

"""Claims on training data (Section 4, Appendix C.2): quality, structure, procedure, teacher."""

from __future__ import annotations

from scipy import stats

from analysis.claims.course import courses_of, mean_course, score_course
from analysis.claims.evidence import Cells, Evidence, Keep, choose, of_columns
from analysis.claims.findings import MARGIN, Claimed, direction, finding, in_words, nothing, on_mean, on_most, p_words
from analysis.claims.optimisation import ALL, DIP, dip_of, shapes
from analysis.claims.runs import COT, COUNTDOWN, NO_COT, NUMINA, R1, TrainedRun, by_size, pairs
from analysis.claims.verdict import Finding, Status
from analysis.columns import ALPACA, IFEVAL, REASONING, TRUTHFULQA
from analysis.holdings import BASE_STEP
from analysis.statistics import LEVEL

MODELS = "all models"
OTHERS = (IFEVAL, ALPACA, TRUTHFULQA)
MATH = REASONING[:2]  # MATH500 and AIME24


def compared(evidence: Evidence, first: str, second: str, keep: Keep | None = None) -> Cells:
    """Second minus first of every model and recipe that was trained on both data sets, by column."""
    cells: Cells = {}
    for a, b in pairs(evidence.runs, first, second):
        if evidence.concerns(a, b):
            cells |= evidence.second_minus_first(a, b, keep)
    return cells


def data_quality(evidence: Evidence) -> list[Finding]:
    """Solutions by people to the same questions teach less than long thinking, and end below the base.

    On most benchmarks of all models together; each model for itself is shown and does not count.
    """
    over = compared(evidence, NUMINA, COT)
    findings = _all_and_each(Claimed("Math-CoT above NuminaMath", 1), over)
    below: Cells = {}
    for run in evidence.main_runs(NUMINA):
        if evidence.concerns(run):
            below |= evidence.against_base(run)
    return findings + _all_and_each(Claimed("NuminaMath below the base", -1), below)


def _all_and_each(claimed: Claimed, cells: Cells) -> list[Finding]:
    if not cells:
        return []
    findings = on_most(claimed, MODELS, "all benchmarks", cells)
    subjects = list(dict.fromkeys(subject for subject, _ in cells))
    quiet = Claimed(claimed.part, claimed.sign, counts=False)
    for subject in subjects if len(subjects) > 1 else []:
        one = {key: found for key, found in cells.items() if key[0] == subject}
        findings[1:1] = on_most(quiet, subject, "all benchmarks", one)[:1]
    return findings


def hardly_recovers(evidence: Evidence) -> list[Finding]:
    """Trained on solutions by people, scores dip below the base, and at the end are not more than 2 points above it.

    Both on the mean over all benchmarks; the dip is tested at all checkpoints at once (maximum statistic).
    """
    findings = []
    for run in evidence.main_runs(NUMINA):
        courses = courses_of(evidence, run, score_course) if evidence.concerns(run) else {}
        course = mean_course([course for course in courses.values() if course.values[0] >= MARGIN])
        if course is not None:
            change = course.change(BASE_STEP, course.steps[-1])
            claimed = Claimed("the end is not above the base", 0)
            words = f"at step {course.steps[-1]}: {in_words(change)}"
            findings += [dip_of(DIP, run.name, ALL, course)[1]]
            findings += [finding(claimed, run.name, ALL, change, direction(change, 0), words)]
    return findings


def structure(evidence: Evidence) -> list[Finding]:
    """Equal questions and answers with and without thinking: with it reasoning is better, without it the rest.

    Each on the mean over the models that have both.
    """
    cells = compared(evidence, NO_COT, COT, of_columns(*REASONING, *OTHERS))
    if not cells:
        return []
    findings = on_mean(
        Claimed("CoT above NoCoT on reasoning", 1), MODELS, "reasoning", choose(cells, of_columns(*REASONING))
    )
    for column in OTHERS:
        claimed = Claimed(f"NoCoT above CoT on {column.benchmark}", -1)
        findings += on_mean(claimed, MODELS, column.title, choose(cells, of_columns(column)))
    return findings


def procedure(evidence: Evidence) -> list[Finding]:
    """Training on traces of an arithmetic game lifts mathematics, and by how much depends on the model.

    The lift is the mean over models of MATH500 and AIME24; that models differ is Cochran's Q of the gains in MATH500.
    """
    cells: Cells = {}
    for run in evidence.main_runs(COUNTDOWN):
        if evidence.concerns(run):
            cells |= evidence.against_base(run, of_columns(*MATH, IFEVAL))
    math = choose(cells, of_columns(*MATH))
    if not math:
        return []
    findings = on_mean(Claimed("Countdown traces lift mathematics", 1), MODELS, "MATH500 and AIME24", math)
    findings += [_differ(choose(cells, of_columns(MATH[0])))]
    return findings + on_mean(
        Claimed("IFEval of each", -1, counts=False), MODELS, "IFEval", choose(cells, of_columns(IFEVAL))
    )


def _differ(cells: Cells) -> Finding:
    """Cochran's Q: whether gains of several models differ by more than their errors."""
    claimed = Claimed("the lift depends on the model", 1)
    known = {subject: found for (subject, _), found in cells.items() if found.error}
    if len(known) < 2:
        return nothing(claimed, MODELS, "MATH500", "fewer than two models")
    weights = {subject: 1 / (found.error or 1.0) ** 2 for subject, found in known.items()}
    centre = sum(weights[subject] * found.effect for subject, found in known.items()) / sum(weights.values())
    q = sum(weights[subject] * (found.effect - centre) ** 2 for subject, found in known.items())
    p_value = float(stats.chi2.sf(q, len(known) - 1))
    gains = {subject: found.effect for subject, found in known.items()}
    most, least = max(gains, key=lambda name: gains[name]), min(gains, key=lambda name: gains[name])
    text = f"{most} {gains[most]:+.1f}, {least} {gains[least]:+.1f} (Cochran's Q = {q:.1f}, {p_words(p_value)})"
    status: Status = "reproduced" if p_value <= LEVEL else "undecided"
    spread = gains[most] - gains[least]
    return Finding(claimed.part, MODELS, "MATH500", status, text, spread, p_value=p_value, counts=True)


def other_teacher(evidence: Evidence) -> list[Finding]:
    """Dip and recovery with DeepSeek-R1 as the teacher, tested as for the default teacher."""
    return shapes(evidence, _sorted(evidence, [run for run in evidence.runs if run.data == R1]))


def other_family(evidence: Evidence) -> list[Finding]:
    """Dip and recovery in families of models other than those of the main text (Qwen3, InternLM2.5)."""
    main = ("Qwen3", "InternLM2.5")
    return shapes(evidence, _sorted(evidence, [r for r in evidence.runs if r.data == COT and r.family not in main]))


def _sorted(evidence: Evidence, runs: list[TrainedRun]) -> list[TrainedRun]:
    return sorted((run for run in runs if evidence.concerns(run)), key=by_size)

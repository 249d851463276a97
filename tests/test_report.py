"""The report, looked at in a real browser: results with hostile names, notes and texts, one cell missing."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest

from analysis.claims import RULE
from analysis.holdings import read_library
from analysis.report.__main__ import main
from analysis.report.cases import all_cases
from reprokit.records.details import Behaviour, Case, CaseResponse, CellDetails, Details, Lengths
from reprokit.records.files import sha256_of_file, write_json
from reprokit.records.record import MissingCell, Record, Results, read_results, write_results
from tests.browser import running_chromium

ATTACK = "</script><script>document.title = 'taken'</script>"
IMAGE = "<img src=x onerror=\"document.title='taken'\">"
RUN = f"{IMAGE} Qwen3-14B_with-a-name-that-has-no-space-" + "and-goes-on-" * 10
OTHER = "second-run"
REPORTED = Path(__file__).parents[1] / "results" / "reported.json"
SCORES = {0: 0.5, 10: 0.25, 20: 0.75}
DESKTOP, PHONE = (1280, 900), (360, 740)


def _record(run: str, step: int, benchmark: str, value: float) -> Record:
    return Record(
        run=run, model="Qwen3-tiny", dataset="Countdown-CoT" if step else None, learning_rate=1e-3, epochs=1.0,
        batch_size=8, schedule="cosine", step=step, benchmark=benchmark, metric="pass@1", protocol="official",
        value=value, unit="percent", items=4, samples_per_item=1, interval_low=max(0.0, value - 20),
        interval_high=min(100.0, value + 20), mean_response_tokens=120.0, truncated_fraction=0.25,
        origin="measured", checkpoints="training", note=ATTACK, provenance="evaluation_1",
    )  # fmt: skip


def _provenance() -> dict[str, Any]:
    engine = {"name": "vllm", "version": "0.32.0", "device": IMAGE, "tensor_parallel": 2, "pipeline_parallel": 1}
    made = {
        "code": {"commit": "c0ffee", "dirty": True}, "packages": {"torch": ATTACK}, "engine": engine,
        "generated_tokens": 1500, "engine_seconds": 1800.0, "tokens_per_second": 1.0,
    }  # fmt: skip
    training = {"code": {"commit": "c0ffee", "dirty": True}, "device": "H200", "world_size": 8}
    training["spent"] = {"steps": 640, "seconds": 7200.0, "tokens": 1_000_000}
    return {"evaluation_1": {"evaluation": made, "judges": {}}, "training": training}


def _cell(step: int, benchmark: str, values: dict[str, float]) -> CellDetails:
    found = Behaviour(responses=1, occurrences=3, per_thousand_tokens=6.25)
    return CellDetails(
        step=step, benchmark=benchmark, metric="pass@1", unit="percent", digest="0" * 64, items=values,
        finished=Lengths(responses=3, mean_tokens=80.0), truncated=Lengths(responses=1, mean_tokens=240.0),
        unfinished_thinking=1, behaviour={"backtracking": found, "repetition": found}, made_from="0" * 64, detectors=1,
    )  # fmt: skip


def _case(benchmark: str, item: str) -> Case:
    texts = {
        0: f"{ATTACK}{item} at base\u2028{'x' * 400}",
        10: f"{IMAGE}{item} begins, {item} ends",
        20: f"{item} 42\x07",
    }
    responses = [
        CaseResponse(step=step, text=text, value=float(step == 20), answer=IMAGE, response_tokens=200 + step,
                     finish_reason="stop" if step else "length")
        for step, text in texts.items()
    ]  # fmt: skip
    responses[1].cut_at, responses[1].omitted = responses[1].text.index(", "), 1234
    return Case(benchmark=benchmark, item=item, pattern=f"wrong at base, right at the end {IMAGE}",
                prompt=f"{ATTACK} What is {item}?", reference=ATTACK, responses=responses)  # fmt: skip


def _write_run(results: Path, run: str, benchmarks: list[str]) -> None:
    lacking = (20, benchmarks[-1])
    cells = [(step, benchmark) for step in SCORES for benchmark in benchmarks if (step, benchmark) != lacking]
    records = [_record(run, step, benchmark, 100 * SCORES[step]) for step, benchmark in cells]
    missing = [MissingCell(step=lacking[0], benchmark=lacking[1])]
    write_results(results / f"{run}.json", Results(run=run, records=records, missing=missing, provenance=_provenance()))
    values = {step: {f"item{place}": float(place < 4 * share) for place in range(4)} for step, share in SCORES.items()}
    details = [_cell(step, benchmark, values[step]) for step, benchmark in cells]
    cases = [_case(benchmark, f"{run}{benchmark}{place}") for benchmark in benchmarks for place in range(3)]
    write_json(results / "details" / f"{run}.json", Details(run=run, cells=details, cases=cases))


@dataclass
class Report:
    """A report that was made, the words of its command, and the exit code."""

    words: dict[str, Path]
    code: int

    @property
    def page(self) -> Path:
        return self.words["out"] / "index.html"


def _make(folder: Path, results: Path) -> Report:
    words = {"results": results, **{name: folder / name for name in ("figures", "tables", "out")}}
    return Report(words, main([f"{key}={value}" for key, value in words.items()]))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    _write_run(folder, RUN, ["countdown", "chain_sum", f"bench{ATTACK}{'mark' * 30}"])
    _write_run(folder, OTHER, ["countdown"])
    reported = read_results(REPORTED)
    reported.records = [record for record in reported.records if record.run.startswith(("Qwen3-4B", "Qwen2.5-7B-Base"))]
    write_results(folder / "reported.json", reported)
    return folder


@pytest.fixture(scope="module")
def report(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return _make(tmp_path_factory.mktemp("report"), results)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with running_chromium() as browser:
        yield browser


@dataclass
class Visit:
    """A page that is open, and what it complained about or asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def visits(chromium: Any, report: Report) -> dict[str, Visit]:
    """The report opened from the file system: on a desktop, on a phone, on a desktop with dark colours."""
    return {
        "desktop": _open(chromium, report, DESKTOP, "light"),
        "phone": _open(chromium, report, PHONE, "light"),
        "dark": _open(chromium, report, DESKTOP, "dark"),
    }


def _open(chromium: Any, report: Report, size: tuple[int, int], scheme: str) -> Visit:
    viewport = {"width": size[0], "height": size[1]}
    page = chromium.new_context(viewport=viewport, color_scheme=scheme).new_page()
    visit = Visit(page)
    page.on("console", lambda message: visit.complaints.append(message.text))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("request", lambda request: visit.requests.append(request.url))
    page.goto(report.page.as_uri())
    return visit


def test_a_partial_report_says_so_first_and_by_exit_code(report: Report, visits: dict[str, Visit]) -> None:
    assert report.code == 3
    text = visits["desktop"].page.inner_text("#summary .partial")
    assert "2 cells" in text and f"{OTHER}: Countdown at step 20" in text and RUN in text
    first = visits["desktop"].page.locator("#summary > *").nth(1)
    assert first.get_attribute("class") == "partial"
    commands = visits["desktop"].page.eval_on_selector_all(
        "#summary .partial code", "all => all.map(e => e.textContent)"
    )
    assert f"python -m reprokit.launch recipe=runs/{OTHER}/recipe.yaml" in commands and "make report" in commands
    assert f"python -m reprokit.launch {shlex.quote(f'recipe=runs/{RUN}/recipe.yaml')}" in commands


PAPERS = "Qwen3-14B_Math-CoT-20k_lr5e-5_ep8_bs256"


@pytest.mark.parametrize(
    ("run", "heading"),
    [
        (OTHER, f"runs of your own ({OTHER}), none of them the paper's"),
        (PAPERS, f"measured runs of the paper ({PAPERS})"),
    ],
)
def test_verdicts_say_whose_runs_they_are_on(tmp_path: Path, chromium: Any, run: str, heading: str) -> None:
    scores = {0: 90.0, 10: 20.0, 20: 10.0}  # a dip without recovery
    records = [
        msgspec.structs.replace(_record(run, step, "math500", value), items=500) for step, value in scores.items()
    ]
    write_results(tmp_path / "results" / f"{run}.json", Results(run=run, records=records))
    page = _open(chromium, _make(tmp_path, tmp_path / "results"), DESKTOP, "light").page
    assert page.locator("#summary h3").first.inner_text() == f"Claims on {heading}"
    assert page.locator("#claims thead th").nth(1).inner_text() == f"On {heading}"
    assert "not reproduced" in page.locator("#summary .verdicts").first.inner_text()
    is_own = run == OTHER
    assert (page.locator(":is(#summary, #claims) .status.bad").count() == 0) == is_own
    assert ("None of these runs is one of the paper's" in page.inner_text("#claims")) == is_own
    assert RULE in page.locator("#claims > p").nth(2).inner_text()


def test_without_words_the_current_folder_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert f"no result file (*.json) in {tmp_path / 'results'}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    _write_run(tmp_path / "results", OTHER, ["countdown"])
    assert main([]) == 3
    assert f"-m reprokit.launch recipe=runs/{OTHER}/recipe.yaml" in capsys.readouterr().out
    assert all((tmp_path / name).is_file() for name in ("report/index.html", "figures/index.json", "tables/index.json"))


@pytest.mark.parametrize("name", ["desktop", "phone", "dark"])
def test_nothing_is_complained_of_and_no_network_asked(visits: dict[str, Visit], name: str) -> None:
    assert visits[name].complaints == []
    assert visits[name].requests and all(url.startswith(("file:", "data:")) for url in visits[name].requests)


def test_hostile_texts_are_shown_and_do_nothing(visits: dict[str, Visit]) -> None:
    page = visits["desktop"].page
    assert page.title() == "Reproduction of arXiv 2604.06628"
    assert page.locator("script").count() == 2
    assert page.locator("img:not(figure img)").count() == 0
    for section in (
        "summary",
        "claims",
        "figures",
        "tables",
        "completeness",
        "behaviour",
        "cases",
        "provenance",
        "cost",
    ):
        assert IMAGE in page.text_content(f"#{section}"), section
    assert ATTACK in page.text_content("#provenance") and ATTACK in page.text_content("#completeness")


def test_the_page_may_load_nothing(chromium: Any, report: Report) -> None:
    page = _open(chromium, report, DESKTOP, "light").page
    blocked = page.evaluate("""() => new Promise((done) => {
        document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
        const onerror = () => setTimeout(() => done("asked for it"), 100);
        document.body.append(Object.assign(new Image(), { onerror, src: "http://127.0.0.1:9/x.png" }));
    })""")
    assert blocked == "img-src"
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"document.title=1\" id=trap>x</p>')")
    page.evaluate("document.getElementById('trap').click()")
    assert page.title() != "1"


def test_every_figure_is_in_the_page_and_beside_it(report: Report, visits: dict[str, Visit]) -> None:
    drawn = json.loads((report.words["figures"] / "index.json").read_bytes())["figures"]
    pictures = [one for one in drawn if one["files"]]
    drawn.sort(key=lambda one: not one["run"])
    pictures.sort(key=lambda one: not one["run"])
    visits["phone"].page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    images = visits["phone"].page.eval_on_selector_all(
        "img", "found => found.map(one => [one.naturalWidth, one.clientWidth, one.alt])"
    )
    assert [alt for *_, alt in images] == [one["caption"] for one in pictures]
    assert all(natural > 0 and shown > 0 for natural, shown, _ in images)
    pdfs = {path.relative_to(report.page.parent / "figures").as_posix() for path in report.page.parent.rglob("*.pdf")}
    assert pdfs == {name for one in pictures for name in one["files"] if name.endswith(".pdf")}
    text = visits["desktop"].page.inner_text("#figures")
    reasons = [one["reason"] for one in drawn if not one["files"]]
    assert reasons and all(reason in text and "python -m reprokit.launch figure=" in reason for reason in reasons)


def test_own_runs_come_first_and_what_is_not_measured_is_closed(chromium: Any, report: Report) -> None:
    page = _open(chromium, report, DESKTOP, "light").page
    assert RUN in page.locator("#figures h3").first.inner_text()
    tables = page.eval_on_selector_all(
        "#tables details.exhibit", "found => found.map(one => [one.querySelector('h3').textContent, one.open])"
    )
    assert [is_open for _, is_open in tables] == [True, True] + [False] * (len(tables) - 2) and len(tables) > 30
    assert {title.removeprefix("Run ") for title, _ in tables[:2]} == {RUN, OTHER}
    closed = page.locator("#figures details.exhibit")
    assert closed.count() and "only values of base models are known" in closed.first.inner_text()
    assert not closed.first.evaluate("one => one.open")


def test_contents_name_every_figure_and_table(visits: dict[str, Visit]) -> None:
    page = visits["desktop"].page
    for section, heading in (("figures", "h3[id], details.exhibit"), ("tables", "details.exhibit")):
        linked = page.eval_on_selector_all(
            f"#{section} .contents a", "found => found.map(one => one.getAttribute('href').slice(1))"
        )
        there = page.eval_on_selector_all(f"#{section} :is({heading})", "found => found.map(one => one.id)")
        assert sorted(linked) == sorted(there) and there


def test_a_link_to_what_is_closed_opens_it(chromium: Any, report: Report) -> None:
    page = _open(chromium, report, PHONE, "light").page
    place = "document.getElementById('table-9')"
    assert not page.evaluate(f"{place}.open")
    for _ in range(2):  # the second time the address does not change
        page.click("#tables .contents a[href='#table-9']")
        assert page.evaluate(f"{place}.open")
        assert abs(page.evaluate(f"{place}.getBoundingClientRect().top")) < PHONE[1]
        page.evaluate(f"{place}.open = false")
    page.goto(report.page.as_uri() + "#table-10-a")
    page.reload()
    assert page.evaluate("document.getElementById('table-10').open")


def test_all_is_open_on_paper(chromium: Any, report: Report) -> None:
    page = _open(chromium, report, DESKTOP, "light").page
    closed = "document.querySelectorAll('details:not([open])').length"
    before = page.evaluate(closed)
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.closedOnPaper = {closed}; }})")
    page.pdf()
    assert before > 10 and page.evaluate("window.closedOnPaper") == 0 and page.evaluate(closed) == before


def test_figures_fit_a_phone_and_lead_to_their_pdf(visits: dict[str, Visit]) -> None:
    figures = visits["phone"].page.eval_on_selector_all(
        "figure img", "found => found.map(one => [one.getBoundingClientRect().right, one.closest('a').href])"
    )
    assert figures and all(right <= PHONE[0] and link.endswith(".pdf") for right, link in figures)


def test_every_link_leads_somewhere(report: Report, visits: dict[str, Visit]) -> None:
    page = visits["desktop"].page
    links = page.eval_on_selector_all("a", "found => found.map(one => one.getAttribute('href'))")
    inside = {link[1:] for link in links if link.startswith("#")}
    ids = page.eval_on_selector_all("[id]", "found => found.map(one => one.id)")
    assert len(ids) == len(set(ids)) and inside <= set(ids) and len(inside) > 10
    beside = [unquote(link) for link in links if not link.startswith("#")]
    assert beside and all((report.page.parent / link).is_file() for link in beside)


@pytest.mark.parametrize("name", ["desktop", "phone"])
def test_the_page_does_not_scroll_sideways(visits: dict[str, Visit], name: str) -> None:
    page = visits[name].page
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wide = page.eval_on_selector_all(
        "body *:not(.wide *, option, .unseen, .skip)",
        "found => found.filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML)",
    )
    assert wide == []


def _texts(page: Any) -> list[str]:
    return page.eval_on_selector_all(".response .verbatim", "found => found.map(one => one.textContent)")


def _choose(page: Any, part: str, label: str) -> None:
    place = page.eval_on_selector_all(
        f"[data-part={part}] option",
        "(found, label) => found.findIndex(one => one.textContent.startsWith(label))",
        label,
    )
    page.select_option(f"[data-part={part}]", index=place)


def test_a_case_can_be_chosen(visits: dict[str, Visit]) -> None:
    page = visits["phone"].page
    _choose(page, "run", OTHER)
    _choose(page, "item", f"{OTHER}countdown1")
    base, middle, end = _texts(page)
    assert base == f"{ATTACK}{OTHER}countdown1 at base\u2028{'x' * 400}" and end == f"{OTHER}countdown1 42␇"
    assert middle.startswith(IMAGE) and "1,234 characters are left out" in middle
    assert page.inner_text("[data-part=prompt]") == f"{ATTACK} What is {OTHER}countdown1?"
    titles = page.eval_on_selector_all(".response h4", "found => found.map(one => one.textContent)")
    assert [title.split()[0] for title in titles] == ["Base", "Step", "End"]
    assert "200 tokens, not finished (length)" in page.inner_text(".response >> nth=0")
    assert "right" in page.inner_text(".response >> nth=2 >> dl")
    _choose(page, "run", IMAGE)
    _choose(page, "benchmark", "Chain sum")
    assert _texts(page)[2] == f"{RUN}chain_sum0 42␇"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_cases_are_walked_through_by_keyboard(visits: dict[str, Visit]) -> None:
    page = visits["desktop"].page
    _choose(page, "run", OTHER)
    assert page.is_disabled("[data-part=previous]")
    page.focus("[data-part=next]")
    page.keyboard.press("Enter")
    assert _texts(page)[2] == f"{OTHER}countdown1 42␇"
    page.keyboard.press("ArrowRight")
    assert _texts(page)[2] == f"{OTHER}countdown2 42␇"
    page.keyboard.press("ArrowRight")
    assert _texts(page)[2] == f"{OTHER}countdown2 42␇" and page.is_disabled("[data-part=next]")
    page.focus("[data-part=responses]")
    page.keyboard.press("ArrowLeft")
    assert _texts(page)[2] == f"{OTHER}countdown1 42␇"
    assert page.inner_text("[data-part=place]").startswith("2 of 3")


@pytest.mark.parametrize("name", ["desktop", "dark"])
def test_every_text_stands_out_from_its_background(visits: dict[str, Visit], name: str) -> None:
    page = visits[name].page
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    weak = page.evaluate("""() => {
        const channels = (color) => color.match(/[\\d.]+/g).map(Number);
        const luminance = (color) => {
            const linear = (c) => c <= 10.31 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4;
            const [r, g, b] = channels(color).map(linear);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (one) => {
            const color = getComputedStyle(one).backgroundColor;
            return (channels(color)[3] ?? 1) > 0 ? color : behind(one.parentElement);
        };
        const hasText = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        const texts = [...document.querySelectorAll("body *:not(script, noscript, option)")].filter(hasText);
        return texts.filter((one) => {
            const pair = [luminance(getComputedStyle(one).color), luminance(behind(one))].sort((a, b) => b - a);
            return (pair[0] + 0.05) / (pair[1] + 0.05) < 4.5;
        }).map((one) => one.outerHTML.slice(0, 200));
    }""")
    assert weak == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (name == "dark")


def test_the_page_has_landmarks_and_headings_in_order(visits: dict[str, Visit]) -> None:
    page = visits["desktop"].page
    assert all(page.locator(f"body > {name}").count() == 1 for name in ("header", "nav", "main"))
    levels = page.eval_on_selector_all("h1, h2, h3, h4, h5", "found => found.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    names = page.eval_on_selector_all(
        "section", "found => found.map(one => document.getElementById(one.getAttribute('aria-labelledby')).textContent)"
    )
    assert names == page.eval_on_selector_all("nav a", "found => found.map(one => one.textContent)")


def test_what_a_run_cost_and_what_made_it(report: Report, visits: dict[str, Visit], results: Path) -> None:
    page = visits["desktop"].page
    rows = page.eval_on_selector_all(
        "#cost tbody tr", "found => found.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert [row[1:5] for row in rows] == [["8 of 8", "12,000", "4.000", "8.000"], ["2 of 2", "3,000", "1.000", "2.000"]]
    assert all(row[6] == "8 × H200, 2.000 hours, 1,000,000 tokens" for row in rows)
    text = page.text_content("#provenance")
    assert text.count("commit c0ffee, with changes that were not committed") == 1
    files = [*results.glob("*.json"), *results.glob("details/*.json")]
    assert len(files) == 5 and all(sha256_of_file(path) in text for path in files)


def test_the_same_results_give_the_same_page(report: Report, results: Path, tmp_path: Path) -> None:
    words = [f"results={results}", *(f"{name}={tmp_path / name}" for name in ("figures", "tables", "out"))]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-m", "analysis.report", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3, done.stderr
    page = (tmp_path / "out" / "index.html").read_bytes()
    assert page == report.page.read_bytes()
    assert str(tmp_path).encode() not in page and str(results).encode() not in page


def test_a_complete_run_without_details(tmp_path: Path, chromium: Any) -> None:
    records = [_record("whole", step, "countdown", 50.0) for step in SCORES]
    write_results(tmp_path / "results" / "whole.json", Results(run="whole", records=records))
    report = _make(tmp_path, tmp_path / "results")
    visit = _open(chromium, report, PHONE, "light")
    assert report.code == 0 and visit.complaints == []
    assert visit.page.locator(".partial").count() == 0 and visit.page.locator("#case-browser").count() == 0
    assert "python -m reprokit.collect" in visit.page.inner_text("#cases")
    assert visit.page.locator("#cost tbody td").nth(0).inner_text() == "0 of 3"


def test_too_many_cases_are_cut_to_the_first_of_each_benchmark(results: Path) -> None:
    library = read_library(results)
    whole = all_cases(library)
    few = all_cases(library, max_characters=len(whole.json) // 2)
    assert (whole.shown, whole.there) == (12, 12) and (few.shown, few.there) == (4, 12)
    assert len(few.json) <= len(whole.json) // 2
    shown, there = ([run["benchmarks"] for run in json.loads(cases.json)] for cases in (few, whole))
    assert [[one["cases"] for one in run] for run in shown] == [[one["cases"][:1] for one in run] for run in there]


def test_without_results_there_is_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = _make(tmp_path, tmp_path)
    assert report.code == 2 and not report.page.exists()
    assert "no result file" in capsys.readouterr().err


def test_an_unknown_word_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page=x"]) == 2
    assert "valid: results=DIR, figures=DIR, tables=DIR, out=DIR" in capsys.readouterr().err

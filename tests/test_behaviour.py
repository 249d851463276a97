"""The rules that find patterns of reasoning: precision on labelled sentences, loops, hostile texts, linear time."""

from __future__ import annotations

import random

import pytest

from reprokit.data.countdown import response, training_puzzles
from reprokit.evaluation.behaviour import (
    DETECTORS,
    LOOP_CHARACTERS,
    LOOP_TIMES,
    LOOP_WORDS,
    behaviours,
    loops,
    plain_text,
)
from reprokit.evaluation.behaviour_rules import ANY, PATTERNS
from tests.performance import bench_behaviour

FOUND = {
    "backtracking": [
        "Wait, that gives 12 and not 13.",
        "So x = 4. Wait, no, I dropped a sign.",
        "Hmm, wait. The second term is negative.",
        "But wait, the problem says distinct digits.",
        "Oh wait, 7 is prime.",
        "That's not right, because 3 does not divide 10.",
        "But that can't be right.",
        "Actually, let me think about this differently.",
        "Let me reconsider the second equation.",
        "Let me try a different approach.",
        "I think I made a mistake in the previous line.",
        "This doesn't make sense, the area would be negative.",
        "**Wait** — the sum should be even.",
        "Actually, no, the base is 8.",
        "Scratch that.",
        "Hold on, the triangle is not isosceles.",
        "Let's start over with y as the unknown.",
        "My initial assumption was wrong.",
        "So we get 35, wait, that is odd.",
        "Okay, so that's a dead end.",
        "Wait\u2014is the angle obtuse?",
        "But wait: the angle at B is right.",
        "It can be at most 1, but wait, if n = 1 it can be 2.",
        "<think>Wait, the sign is wrong.</think>",
        "That doesn\u2019t work, since 5 is left over.",
    ],
    "verification": [
        "Let me check: 3 * 4 = 12.",
        "Let me double-check this result.",
        "Let's verify the answer with n = 2.",
        "I'll verify that the sum is 100.",
        "Substituting back, we get 9 = 9.",
        "Plugging x = 3 back into the equation gives 0.",
        "To verify, compute the derivative.",
        "**Verification:** 2 + 2 = 4",
        "Check: 5 + 7 = 12.",
        "Is that right? Yes.",
        "Does this satisfy the second condition?",
        "This matches the expected output of 7.",
        "Everything checks out.",
        "As a sanity check, put n = 1.",
        "Double-checking the calculation, 12 + 9 is 21.",
        "We should verify that both roots are real.",
        "Let me just make sure that the units agree.",
        "Let me see if that works.",
    ],
    "sub_goals": [
        "First, I need to find the radius.",
        "First, let's simplify the expression.",
        "First, find the slope of the line.",
        "Step 1: factor the polynomial.",
        "### Step 2\nSolve for y.",
        "**Step 3.** Add them.",
        "Next, we compute the area.",
        "Next, let me look at the second case.",
        "Okay, so first, I should understand the problem.",
        "Now I need to find b.",
        "To solve this, we need to know the height.",
        "The next step is to integrate.",
        "Let's start by listing the primes.",
        "Let's break this down.",
        "My goal is to isolate x.",
        "Then I need to subtract the overlap.",
        "Finally, we can add the three parts.",
        "We begin by drawing the diagonal.",
    ],
    "enumeration": [
        "Case 1: x is even.",
        "**Case 2:** x is odd.",
        "Case (ii) follows. In case 3, nothing is left.",
        "Let me try a = 3.",
        "Try 7 * 8 = 56, too large.",
        "Trying with n = 4 gives 15.",
        "If x = 1, then y = 4.",
        "For n = 2, we get 6.",
        "- n = 3: 10\n",
        "Let's list all divisors.",
        "Let me enumerate the triples.",
        "Possible values of k are 1, 2 and 5.",
        "Another possibility is that both are zero.",
        "Option B: this would need more energy.",
        "Attempt 3: 20 - 6 = 14.",
        "The second case is when p divides q.",
        "We can test each option.",
        "Let me try different combinations.",
        "Let's go through them.",
    ],
}
NOT_FOUND = {
    "backtracking": [
        "The waiting time is 5 minutes.",
        "They had to wait, and the bus came late.",
        "Wait for 10 minutes before serving.",
        "The waiter brings the bill.",
        "I can't wait to see it.",
        "Add the job to the wait-list.",
        "Please hold on to the rail.",
        "The clock is not right above the door.",
        "The right angle is at B.",
        "If that doesn't work, restart the router.",
        "Mistakes in the ledger cost $5.",
        "The answer is not correct to three digits unless rounded.",
        "He reconsidered the offer.",
        "Turn back at the dead end street.",
        "Wait time: 12 minutes.",
        "Wait: 12 minutes.",
        "await fetch(url)",
        "The scratch that he found was deep.",
        "def wait(seconds):",
    ],
    "verification": [
        "She wrote a check for $5.",
        "A checkered board has 64 squares.",
        "He checks out of the hotel.",
        "Check in at the desk by noon.",
        "I'll check with my manager.",
        "The verified account posted.",
        "The program reads a list to check if it is sorted.",
        "Verification codes are sent by mail.",
        "The pattern matches any digit.",
        "Put the book back on the shelf.",
        "You can confirm your order online.",
        "Let me see if that sum can be simplified.",
        "Checkmate in two moves.",
        "Is this seat taken?",
        "The check is in the mail.",
        "I will check your application.",
        "Paychecks arrive on Friday.",
    ],
    "sub_goals": [
        "The first term is 3.",
        "First place goes to Ann.",
        "The first step of the stairs is 20 cm high.",
        "Step back from the door.",
        "A step 2 metres long is needed.",
        "The next day it rained.",
        "First Amendment rights are old.",
        "At first it rained.",
        "Then we have that the sum is 5.",
        "We need to talk.",
        "He scored a goal in the second half.",
        "Next to the house stands a tree.",
        "Finally it stopped.",
        "Secondary colours are mixed from primary ones.",
        "The finally clause always runs.",
        "I need to sleep.",
        "The steps: 3 in all.",
    ],
    "enumeration": [
        "In that case, the answer is 4.",
        "The case was closed in 1990.",
        "Just in case it rains, take a coat.",
        "Try again tomorrow.",
        "Please try 3 times before you give up.",
        "The equation y = 3x + 1 is linear.",
        "Let x = 5 and y = 3.",
        "The answer is x = 5.",
        "The trial lasted 3 days.",
        "In the second case, both are zero.",
        "You have the option to leave.",
        "He tried hard.",
        "A list of names follows.",
        "Suitcase 3 is lost.",
        "if (n == 3) return 1;",
        "The second half begins.",
        "for i in range(3):",
    ],
}


@pytest.mark.parametrize(("detector", "sentence"), [(name, text) for name, texts in FOUND.items() for text in texts])
def test_what_is_meant_is_found(detector: str, sentence: str) -> None:
    assert behaviours(sentence)[detector] >= 1
    assert behaviours(f"So that is it. {sentence}\nThe rest follows.")[detector] >= 1


@pytest.mark.parametrize(
    ("detector", "sentence"), [(name, text) for name, texts in NOT_FOUND.items() for text in texts]
)
def test_what_only_looks_like_it_is_not_found(detector: str, sentence: str) -> None:
    assert behaviours(sentence)[detector] == 0
    assert behaviours(f"So that is it. {sentence}\nThe rest follows.")[detector] == 0


def test_matches_of_one_detector_do_not_overlap_and_every_detector_counts_for_itself() -> None:
    assert behaviours("Wait, wait, that's not right.")["backtracking"] == 2
    assert behaviours("Wait. Let me reconsider. That can't be right.")["backtracking"] == 3
    both = behaviours("Now let's check each case. Case 1: fine.")
    assert (both["verification"], both["enumeration"]) == (1, 2)


def test_one_pass_finds_what_each_pattern_finds_alone() -> None:
    """The joint expression is a short cut: it must miss nothing."""
    text = " ".join(sentence for sentences in FOUND.values() for sentence in sentences)
    plain = plain_text(text)
    alone = {name: len(pattern.findall(plain)) for name, pattern in PATTERNS.items()}
    assert {name: found for name, found in behaviours(text).items() if name in PATTERNS} == alone
    assert all(len(ANY.findall(plain)) >= found > 10 for found in alone.values())


def test_lines_of_the_search_traces_are_candidates_and_dead_ends() -> None:
    for puzzle in training_puzzles(50, seed=3):
        text = response(puzzle)
        found = behaviours(text)
        assert found["enumeration"] == text.count("->")
        assert found["backtracking"] == text.count(" no\n") >= 1
        assert found["verification"] == found["sub_goals"] == found["repetition"] == 0


def prose(seed: int, words: int) -> str:
    """Text without loops: random words of a small vocabulary, as of a text that says much the same again and again."""
    generator = random.Random(seed)
    return " ".join(f"w{generator.randrange(40)}" for _ in range(words))


@pytest.mark.parametrize("words", [1, 2, 3, 7, 8, 9, 40, 300])
@pytest.mark.parametrize("before", [0, 500])
def test_a_passage_again_and_again_is_a_loop_wherever_it_stands(words: int, before: int) -> None:
    passage = " ".join(f"p{place}" for place in range(words)) + "\n"
    times = max(LOOP_TIMES, -(-LOOP_WORDS // words))
    lead = prose(1, before) + " "
    assert loops(lead + passage * times) == 1  # at the end
    assert loops(lead + passage * times + prose(2, before + 3)) == 1  # or in the middle
    assert loops(lead + passage * (times - 1)) == 0


def test_a_round_may_repeat_parts_of_itself() -> None:
    part, tail = prose(5, 20), prose(6, 30)
    assert loops(f"{part} x {part} {tail}\n" * LOOP_TIMES) == 1


def test_loops_are_counted_once_each() -> None:
    again = "So the answer is 5. Let me check again.\n" * 40
    assert loops(again) == 1
    assert loops(again + prose(3, 100) + " No, no, it is 7 then, so we are done now.\n" * 30) == 2
    assert loops(again + prose(3, 100) + again) == 2


def loops_by_definition(words: list[str]) -> int:
    """Every period tried at every place."""
    found = []
    for period in range(1, len(words) // LOOP_TIMES + 1):
        same = [word == words[place] for place, word in enumerate(words[period:])] + [False]
        start = 0
        for place, holds in enumerate(same):
            if not holds:
                if place - start + period >= max(LOOP_TIMES * period, LOOP_WORDS):
                    found.append((start, place + period))
                start = place + 1
    number, reached = 0, -1
    for start, end in sorted(found):
        number, reached = number + (start >= reached), max(reached, end)
    return number


@pytest.mark.parametrize("seed", range(200))
def test_loops_are_those_of_the_definition(seed: int) -> None:
    generator, words = random.Random(seed), []
    letters = generator.choice([2, 3, 5, 30])
    for _ in range(generator.randint(1, 5)):
        passage = [str(generator.randrange(letters)) for _ in range(generator.randint(1, 25))]
        words += (passage * 9)[: int(len(passage) * generator.uniform(1, 8))]
        words += [str(generator.randrange(letters)) for _ in range(generator.randint(0, 60))]
    assert loops(" ".join(words)) == loops_by_definition(words)


@pytest.mark.parametrize(
    "text",
    [
        prose(4, 20_000),
        (prose(8, 200) + "\n") * (LOOP_TIMES - 1),
        "".join(f"Step {number}: add {number} to the sum.\n" for number in range(500)),
        "| a | b | c |\n| --- | --- | --- |\n| 0 | 0 | 0 |\n",
        "Matrix:\n" + "0 0 0 0\n" * 4,
        "0.3333333333333333",
        "-" * 80,
    ],
)
def test_what_is_no_loop(text: str) -> None:
    assert loops(text) == 0


def test_loops_without_blanks_are_found() -> None:
    assert loops("a" * LOOP_CHARACTERS) == 1 and loops("a" * (LOOP_CHARACTERS - 1)) == 0
    assert loops("\u5730\u7403\u662f\u5706\u7684\uff0c" * 60) == 1


@pytest.mark.parametrize(
    ("text", "looped"),
    [
        ("", 0),
        ("\x00", 0),
        ("x" * 1_000_000, 1),
        ("\n" * 1_000_000, 0),
        (" " * 1_000_000, 0),
        ("." * 1_000_000, 1),
        ("\ud800 \udfff wait" * 20_000, 1),
        ("word " * 200_000, 1),
        ("try " + "(" * 1_000_000, 1),
        ("-> 1:" + " 2" * 300_000, 1),
        ("plug a" + " b" * 300_000, 1),
        ("possible values of " * 50_000, 1),
        (". to solve the" * 50_000, 1),
        ("let me just now " * 50_000, 1),
        (prose(9, 200_000), 0),
        (prose(9, 2_000) * 50, 1),
    ],
)
def test_any_text_will_do_in_linear_time(text: str, looped: int) -> None:
    """A quadratic step would take minutes."""
    found = behaviours(text)
    assert set(found) == set(DETECTORS) and found["repetition"] == looped
    assert sum(found.values()) == looped


def test_the_measurement_of_speed_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_behaviour.main(["--toy"]) == 0
    assert capsys.readouterr().out.count("MB/s") == 2 + len(bench_behaviour.HOSTILE)

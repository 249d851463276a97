r"""The table of rules by which `behaviour` finds patterns of reasoning.

A rule has the words with which it begins, several of them parted by `/`, and a regular expression for what follows. Per
detector there are rules that hold after any blank or sign, and rules that hold only where a sentence or clause begins.
They see the text in lower case, with plain apostrophes. Capitals stand for the shared parts below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

DETECTORS_VERSION = 1  # raised whenever a text may count differently: details are then made again

Rule = tuple[str, str]  # first words, what follows

_PARTS = {
    "AGAIN": r"(?:re-?consider|re-?think|start (?:over|again|from scratch)|backtrack|redo|revisit (?:the|this|that|my)"
    r"|go back (?:and|to (?:step|the (?:start|beginning|original|previous|problem|equation|first|drawing)))"
    r"|try (?:again|something else|(?:a different|another|an alternative) (?:approach|way|method|strategy|route|idea))"
    r"|think (?:about (?:this|it) )?(?:again|differently)|re-?evaluate|correct (?:that|this|myself|it)"
    r"|fix (?:that|this)|(?:take a )?step back)\b",
    "CHECK": r"(?:just |also |now |quickly |first |actually |carefully |try to ){0,2}"
    r"(?:(?:double[- ]?|cross[- ]?|re-?)?check|verify|confirm|validate|re-?calculate|re-?compute"
    r"|make sure (?:that )?(?:i|this|that|the|my|it|we|there|all)|test (?:this|that|it|my|our)"
    r"|see if (?:that|this|it)(?: is|'s| works| holds| fits| makes sense| satisfies| matches| checks out))\b"
    r"(?! (?:in|out|on|your|you|his|him|her|their|them|with (?:my|the|him|her|them|you))\b)",
    "PLAN": r"(?: of all)?(?:,? (?:(?:i|we)(?:'ll| (?:need|have to|must|should|will|want to|can|could))\b|(?:i|we) FIND"
    r"|let(?:'s| me| us)\b)|, FIND)",
    "FIND": r"(?:find|compute|calculate|determine|identify|note|recall|consider|simplify|rewrite|express|solve|factor"
    r"|expand|define|convert|set up|understand|figure out|observe|evaluate|isolate|count|derive|prove|show"
    r"|analy[sz]e)\b",
    "NAMED": r"[a-z](?:_\{?[a-z0-9]\}?)? ?= ?NUMBER(?!\d|\.\d)\$?",
    "NUMBER": r"-?\d{1,9}",
    # A line of the search traces in this project's Countdown data.
    "TRACE": r"\d{1,9} [-+*/] \d{1,9} = \d{1,9}, \d{1,9} -> \d{1,9}:",
}

_LET = "let's/let me/let us"
_SHALL = "i'll/i will/i should/i need to/i have to/i must"

_BACKTRACKING: tuple[list[Rule], list[Rule]] = (
    [
        (_LET, r" (?:just |now )?AGAIN"),
        (_SHALL + "/we should/we need to/we have to/we must", r" AGAIN"),
        ("that's/that is/that was/that seems", r" (?:not (?:right|correct|possible)|wrong|incorrect|impossible)\b"),
        ("this is not", r" (?:right|correct|working|possible)\b"),
        ("that/this", r" (?:can't|cannot|can not|couldn't) be (?:right|correct|true|it|possible)\b"),
        (
            "that/this",
            r"(?<!if that)(?<!if this) (?:doesn't|does not|didn't|isn't|won't) (?:make sense|seem (?:right|correct)"
            r"|look (?:right|correct)|add up|right\b|correct\b"
            r"|(?:work|help)(?=[.,;!…—]|\n|\Z| (?:either|because|since|out|as)\b))",
        ),
        (
            "i",
            r" (?:think i |must have |may have |might have |have |just |realized? (?:that )?i )?"
            r"(?:made (?:a|an|some) (?:[a-z]+ )?(?:mistake|error)|messed (?:that |this |it )?up|miscalculated"
            r"|miscounted|misread|misunderstood the|misinterpreted|overlooked)",
        ),
        ("my mistake", r"(?=[.,!;:])"),
        ("my", r" (?:initial|earlier|previous|first) [a-z]+ (?:was|is|were) (?:wrong|incorrect|flawed)"),
        ("on second thought", r"\b"),
        ("dead end", r"(?=[.,;!:\n])"),
        ("but wait/oh wait/no wait", r"(?=[,.!?…—]|:(?! ?\d))"),
        ("wait", r"(?<=[,—] wait), (?:no|that|but|actually|maybe|let me|this|is that|i)\b"),
    ],
    [
        (
            "wait/but wait/oh wait/oh, wait/no wait/no, wait/hmm, wait/hmm wait/so wait/okay, wait/ah, wait/well, wait"
            "/actually wait/actually, wait",
            r"(?=[*_\"']{0,3}(?:\s?[,.!?…—–]|:(?! ?\d)| -|\n|\Z)| (?:no|but|actually|maybe|perhaps|that|this|is"
            r"|isn't|what|why|let me|i|we|if|so|it|the (?:problem|question|answer|original|first))\b"
            r"| a (?:minute|second|sec|moment)[,.!?…—])",
        ),
        ("hold on/but hold on/no, hold on", r"(?=[,.!…—])"),
        ("actually", r", (?:no|that's (?:not|wrong)|i (?:made|was wrong))\b"),
        ("oops/scratch that/no, scratch that", r"(?=[,.!…—]|\n|\Z)"),
        ("", r"TRACE(?: \d{1,9}){0,99} no(?=\n|\Z)"),
    ],
)

_VERIFICATION: tuple[list[Rule], list[Rule]] = (
    [
        (f"{_LET}/{_SHALL}/i can/i want to/we'll/we should/we can/we must/we could/we need to", r" CHECK"),
        (
            "to check/to verify/to confirm/to validate/to double-check/to double check",
            r"(?=,|:| (?:this|my|our|that (?:this|our|my|the|it)|the (?:answer|result|solution|calculation))\b)",
        ),
        (
            "plug/plugging/substitute/substituting/put/putting",
            r" (?:[^.\n]{1,40}? )?back(?=,|\.|:|\n|\Z| in| to (?:check|verify|see))",
        ),
        ("sanity check/sanity-check", r"\b"),
        ("checks out", r"(?=[.,;:!)✓]|\n|\Z| (?:with|because|since|as well|too)\b)"),
        (
            "that/this/which/it/result/answer/value",
            r" (?:indeed |also )?(?:matches|agrees with|is consistent with) (?:the|our|what|my) (?:given|expected"
            r"|original|earlier|previous|known|problem|result|answer|condition|first|other|one|sample|example|target"
            r"|was|we|i)\b",
        ),
        ("is", r" (?:that|this|it) (?:right|correct|true)\?"),
        ("does", r" (?:that|this|it) (?:work|make sense|add up|satisfy|hold|check out)\b[^.\n?]{0,60}\?"),
        (
            "i've/i have/i",
            r" (?:verified|double-checked|checked) (?:that|this|it|the (?:answer|result|solution))\b",
        ),
    ],
    [
        ("check/quick check/final check/verification/verify", r"(?=\**:|\**\n|\*\*)"),
        (
            "checking/double-checking/double checking/rechecking/re-checking/cross-checking",
            r"(?=:|,| (?:this|that|our|my|if|whether|each|again|back|the (?:answer|result|solution|calculation))\b)",
        ),
        ("verify/verifying", r" (?:that|this|our|my|each|by|with|the (?:answer|result|solution|calculation))\b"),
        ("indeed", r", (?:this|that|it) (?:works|holds|satisfies)"),
    ],
)

_SUB_GOALS: tuple[list[Rule], list[Rule]] = (
    [
        ("i/we", r" (?:first |then |now |also )?need to (?:first )?FIND"),
        (_LET, r" (?:(?:start|begin) (?:by|with|from)\b|first )"),
        ("i/we/i'll/we'll/i will/we will/i can/we can", r" (?:start|begin) by\b"),
        (
            "my/our/the",
            r" (?:first|next|second|third|final|last) (?:step|task|sub-?goal|goal) (?:is|will be|would be|should be)\b",
        ),
        ("my/our", r" (?:sub-?)?(?:goal|task|aim) (?:now |here )?is (?:now )?to\b"),
        ("the", r" (?:sub-?)?(?:goal|task|aim) (?:now |here )?is (?:now )?to FIND"),
        (
            "break/breaking",
            r" (?:this|it|that|the (?:problem|question|task|expression)) (?:down\b|into (?:[a-z]+ )?(?:parts|steps"
            r"|cases|pieces|components|sub))",
        ),
    ],
    [
        ("first/firstly/second/secondly/third/thirdly/next/after that/finally", r"PLAN"),
        ("so first/so, first/so next/so, next/okay, first/okay, so first/now, first/well, first", r"PLAN"),
        ("then/so then", r",? (?:i|we) (?:need|have to|must)\b"),
        (
            "to",
            r" (?:do|solve|find|answer|get|determine|tackle|approach) (?:this|that|it|so|the [a-z]+),? (?:i|we)"
            r"(?:'ll| (?:first )?(?:need|have|must|should|can|will|could)\b)",
        ),
        ("now/so now/okay, now", r",? (?:(?:i|we) (?:need|have) to\b|let(?:'s| me| us) FIND)"),
        ("step", r" (?:\d{1,3}|one|two|three|four|five)(?=\s?[:.)*—–-]|\n|\s\()"),
    ],
)

_ENUMERATION: tuple[list[Rule], list[Rule]] = (
    [
        (
            "try/trying",
            r" (?:with |out )?(?:\$?NAMED|\(*NUMBER(?:\.\d{1,9})?\)*(?: ?[-+*/×÷=:]| ?\\times|[,.?!;\n]| and NUMBER))",
        ),
        (
            "try/trying",
            r" (?:values|each (?:of|value|number|option|possible)|all (?:the )?(?:possible|combinations|values|options"
            r"|pairs)|every|(?:different|other|various|some|small) (?:values|combinations|numbers|pairs|cases|orders)"
            r"|combinations|multiplying|adding|subtracting|dividing|combining)\b",
        ),
        ("test/testing", r" (?:with )?(?:\$?NAMED|each (?:option|value|case|candidate))"),
        (
            _LET,
            r" (?:list|enumerate|go through|consider (?:each|all|every|the (?:possible|different|various))"
            r"|(?:check|test|examine|analy[sz]e|look at) (?:each|all))\b",
        ),
        (
            "possible/candidate",
            r" (?:values|pairs|combinations|solutions|answers|integers|cases|triples|divisors|factors) "
            r"(?:(?:for|of) [^.\n]{1,20} )?(?:are|include|would be)\b",
        ),
        ("the possibilities/the candidates/the cases", r" (?:are|include)\b"),
        (
            "first/second/third/fourth/last/other/another/next",
            r" (?:case|possibility|candidate|combination)(?= (?:is|would|to)\b|:)",
        ),
        ("one by one", r"(?=[.,:;\n])"),
        ("looking at/consider/considering/evaluate/evaluating", r" (?:option|choice) \(?[a-j]\b"),
    ],
    [
        (
            "case/subcase/sub-case/in case/for case/consider case",
            r" (?:\d{1,3}|[ivx]{1,4}|[a-d]|one|two|three)(?=\s?[:.,)*—–]| -|\n| \()",
        ),
        ("if/for/when/suppose/assume/say", r" \$?NAMED(?= ?[,:]| (?:then|we|it)\b|\n)"),
        ("", r"NAMED ?(?::|->|=>|→|⇒|\\rightarrow|\\implies)"),
        (
            "option/choice/possibility/scenario/candidate/attempt/try/combination/pair",
            r" (?:\d{1,3}|\(?[a-j]\)?)(?=\s?[:.*—–]| -)",
        ),
        ("", r"TRACE"),
    ],
)

_RULES = {
    "backtracking": _BACKTRACKING,
    "verification": _VERIFICATION,
    "sub_goals": _SUB_GOALS,
    "enumeration": _ENUMERATION,
}
_SENTENCE_END, _MARK = r"[\n.!?:;…—]", r"""[ \t"'(*_>#$\-–]"""
_SHARED_LETTERS = 3  # first letters by which rules are sorted into a tree: most words are then refused at once


def _compiled(tables: Iterable[tuple[list[Rule], list[Rule]]]) -> re.Pattern[str]:
    """One expression for all rules of these detectors; a match begins with the sign before it."""
    anywhere, at_start = (
        _tree(
            [first + _filled(rest) for rules in kind for words, rest in rules for first in words.split("/")],
            _SHARED_LETTERS,
        )
        for kind in zip(*tables, strict=True)
    )
    return re.compile(rf"[^a-z0-9_](?:{anywhere}|{_MARK}(?<={_SENTENCE_END}.){_MARK}{{0,5}}(?:{at_start}))", re.DOTALL)


def _filled(expression: str) -> str:
    for name, part in _PARTS.items():  # parts name only parts that come after them
        expression = expression.replace(name, part)
    return expression


def _tree(alternatives: Sequence[str], depth: int) -> str:
    """`alternatives` parted by `|`, with first letters that several share taken out of the bracket."""
    by_letter: dict[str, list[str]] = {}
    for alternative in alternatives:
        by_letter.setdefault(alternative[0] if re.match("[a-z ](?![?*+{])", alternative) else "", []).append(
            alternative
        )
    parts = []
    for letter, members in by_letter.items():
        if letter and depth and len(members) > 1:
            parts.append(f"{letter}(?:{_tree([member[1:] for member in members], depth - 1)})")
        else:
            parts += members
    return "|".join(parts)


PATTERNS = {name: _compiled([table]) for name, table in _RULES.items()}
ANY = _compiled(_RULES.values())  # matches where any of PATTERNS does

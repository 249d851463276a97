"""Which checkpoints the cases show side by side."""

from __future__ import annotations

import pytest

from reprokit.evaluation.cases import shown_steps


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({0: 50, 10: 30, 20: 20, 40: 60}, [0, 20, 40]),
        ({0: 50, 10: 60, 20: 70, 40: 80}, [0, 10, 40]),  # no dip: the first checkpoint
        ({0: 50, 10: 20, 20: 20, 40: 10}, [0, 10, 40]),  # the end is no dip
        ({0: 50, 40: 10}, [0, 40]),
        ({10: 50, 20: 40, 40: 60}, [10, 20, 40]),
        ({0: 50}, [0]),
    ],
)
def test_base_dip_and_end_are_shown(values: dict[int, float], expected: list[int]) -> None:
    assert shown_steps(values) == expected

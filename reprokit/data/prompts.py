"""Wording that training rows and benchmarks share."""

# Official code: the end of every training prompt. (Its mathematics benchmarks have a blank after the line end.)
BOX_INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."

"""The claims by name, in the order of the paper; what they say is from its Section 1 to 6 (public notes)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis.claims import capability, data, optimisation, schedules
from analysis.claims.evidence import Evidence
from analysis.claims.verdict import Finding


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, where it stands, and its test; the test's docstring says how it is tested."""

    id: str
    title: str
    statement: str
    where: str
    test: Callable[[Evidence], list[Finding]]

    @property
    def method(self) -> str:
        """How it is tested, in one paragraph."""
        return " ".join((self.test.__doc__ or "").split())


CLAIMS = (
    Claim(
        "one_epoch",
        "One epoch looks like memorisation",
        "After one epoch the in-domain scores have risen much, and OOD and general ones are flat or lower.",
        "Sec. 3.1, Fig. 2, Table 4",
        optimisation.one_epoch,
    ),
    Claim(
        "lower_learning_rate",
        "A lower learning rate is worse",
        "Short training with a learning rate of 1e-5 instead of 5e-5 makes it worse.",
        "Sec. 3.1, App. C.1, Table 4",
        schedules.lower_rate,
    ),
    Claim(
        "dip_and_recovery",
        "Dip and recovery",
        "Over eight epochs scores first dip, then recover and pass the base on OOD benchmarks.",
        "Sec. 3.1-3.2, Fig. 3",
        optimisation.dip_and_recovery,
    ),
    Claim(
        "dip_outside_math",
        "Deeper dip outside math",
        "The dip is deeper outside mathematics.",
        "Sec. 3.2, Fig. 3",
        optimisation.dip_outside_math,
    ),
    Claim(
        "length_surge",
        "Response length surges",
        "In the dip responses become much longer than those of the base.",
        "Sec. 3.2, Fig. 3",
        optimisation.length_surge,
    ),
    Claim(
        "length_shrink",
        "Response length shrinks again",
        "After the dip responses become shorter again.",
        "Sec. 3.2, Fig. 3, Appendix D",
        optimisation.length_shrink,
    ),
    Claim(
        "repeated_exposure",
        "Repeated exposure beats one pass",
        "At 640 steps 2.5k rows seen eight times beat 20k rows seen once, on eight of nine benchmarks.",
        "Sec. 3.3, Table 1 (settings 2 and 3)",
        schedules.repeated_exposure,
    ),
    Claim(
        "full_data",
        "Full data eight times is best",
        "At 640 steps 20k rows seen eight times, with batch 256, are best overall.",
        "Sec. 3.3, Table 1 (setting 1)",
        schedules.full_data,
    ),
    Claim(
        "over_fitting",
        "Over-fitting only under the aggressive schedule",
        "Only high learning rate, no decay and 16 epochs together make scores fall and length rise again.",
        "Sec. 3.4, Fig. 4 and 9-11",
        schedules.over_fitting,
    ),
    Claim(
        "data_quality",
        "Quality of data",
        "NuminaMath solutions hurt nearly everywhere, even below the base; long thinking is better.",
        "Sec. 4, Table 2",
        data.data_quality,
    ),
    Claim(
        "poor_data_hardly_recovers",
        "NuminaMath hardly recovers",
        "Trained on NuminaMath solutions, scores dip and hardly recover.",
        "Sec. 3.2, Sec. 4",
        data.hardly_recovers,
    ),
    Claim(
        "structure",
        "Structure of data",
        "Long thinking beats none on reasoning; without it IFEval, AlpacaEval and TruthfulQA are better.",
        "Sec. 4, Table 2",
        data.structure,
    ),
    Claim(
        "procedure",
        "Procedure over content",
        "Traces of the Countdown game lift mathematics; how much depends on the model.",
        "Sec. 4, Table 2",
        data.procedure,
    ),
    Claim(
        "other_teacher",
        "Same shape with another teacher",
        "With DeepSeek-R1 as the teacher scores dip and recover too.",
        "App. C.2, Fig. 7",
        data.other_teacher,
    ),
    Claim(
        "other_family",
        "Same shape in another family",
        "In another family of models (Qwen2.5; version 2: Gemma3) scores dip and recover too.",
        "App. C.2, Fig. 8, 14, 15",
        data.other_family,
    ),
    Claim(
        "capability_order",
        "Larger models end higher",
        "With the same data and recipe the final scores are in the order of size.",
        "Sec. 5, Fig. 5, 12, 13",
        capability.capability_order,
    ),
    Claim(
        "capability_gains",
        "Capable models gain more",
        "The largest model gains broadly; the smallest ends near or below its base but for MMLU-Pro.",
        "Sec. 5, Fig. 5, Tables 6 and 9",
        capability.capability_gains,
    ),
    Claim(
        "length_by_size",
        "Smaller models keep long answers",
        "Smaller models keep giving long answers; larger ones shorten theirs sooner.",
        "Sec. 5, Fig. 13",
        capability.length_by_size,
    ),
    Claim(
        "asymmetry",
        "Reasoning up, safety down",
        "Long thinking raises reasoning and, far more than data without it, the attack success rate on HEx-PHI.",
        "Sec. 6, Fig. 6",
        capability.asymmetry,
    ),
)

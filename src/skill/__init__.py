"""Skill: a skill score of the within-class correlation of stitched and end network, above the baseline of
untrained features.

    within_class.py  the within-class correlation r, and skill (r − r₀) / (1 − r₀)
    running.py       r of many stitches, accumulated over batches
    widths.py        the width of a front layer, which untrained features must not exceed
    untrained.py     untrained features: copies of the end network, and random features of the input
    baseline.py      the baseline r₀: the largest r of stitches from untrained features given the class
    skills.py        skill at the end layer and at the output, with intervals
"""

from src.skill.within_class import skill_score, within_class_correlation

__all__ = ["skill_score", "within_class_correlation"]

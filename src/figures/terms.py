"""The meaning of the verdicts and of skill, in words. The module imports nothing, as --help prints it."""

SKILL = (
    "Skill says how closely a stitched network follows the end network from input to input of a class: 1 is the end "
    "network itself, 0 the baseline, which untrained features reach when given the class. It is (r − baseline) / (1 − "
    "baseline), where r is the correlation of stitched and end network's values, both less the means of their classes "
    "(misc/docs/methods.md)."
)
CAUTION = (
    "Similar means that the end network, given an affine map of the front layer, predicts what it predicts by itself, "
    "and reproduces its differences between inputs of a class. It does not mean that both networks compute in the same "
    "way."
)


def meanings(points: float = 5, skill: float = 0.33, skill_at_end: float = 0.15) -> dict[str, str]:
    """Return the meaning of each verdict.

    Args:
        points: the accuracy drop below which a pair can be similar, in percentage points.
        skill, skill_at_end: the lowest skill of a similar pair, at the output and at the end layer.
    """
    return {
        "similar": f"less than {points:g} points of accuracy drop, with a skill above {skill_at_end:g} at the end "
        f"layer ({skill:g} with two or three classes) and {skill:g} at the output",
        "accurate only": "an accuracy drop as small, but a skill below its limit at one of the two places, or both",
        "not matched": "a larger accuracy drop by this method; another may do better",
        "inconclusive": "none of the other verdicts is certain, for the stated reason",
    }


def legend() -> str:
    """Return the meaning of the verdicts by the default limits, and that of skill, as a paragraph."""
    words = "; ".join(f"{verdict}: {meaning}" for verdict, meaning in meanings().items())
    return f"Verdicts (at the default limits). {words}. {SKILL}"

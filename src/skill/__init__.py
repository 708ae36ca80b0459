"""Skill: a skill score of the within-class correlation of stitched and end network, above the baseline of
untrained features."""

from src.skill.within_class import skill_score, within_class_correlation

__all__ = ["skill_score", "within_class_correlation"]

"""Skill: how closely a stitched network follows the end network within a class, above a baseline."""

from src.skill.within_class import skill_score, within_class_correlation

__all__ = ["skill_score", "within_class_correlation"]

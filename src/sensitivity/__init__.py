"""Sensitivity and specificity tests of measures, on tables of similarity, probing and stitching."""

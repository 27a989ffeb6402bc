"""Figures on points and scores: intervals, calibrated confidence, parity."""

"""Poses over time: who is who, and smoothing."""

"""Carries a plan out: scheduler, row engine, results."""

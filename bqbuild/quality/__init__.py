"""Deduplication, decontamination, language, quality signals and data tests."""

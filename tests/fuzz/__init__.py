"""Fuzzing, guided by coverage: ``python -m tests.fuzz`` looks on, `test_fuzz` holds what was found."""

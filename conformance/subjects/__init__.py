"""Agents with one tool, each on a framework and with one instrumentation."""

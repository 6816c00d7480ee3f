"""Whole jobs: one study through the Python API, many studies through the command."""

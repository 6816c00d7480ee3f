"""Lungs, and how much of them is affected."""

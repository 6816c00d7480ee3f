"""Inputs: what a file is, which files an input names, and how each becomes a value of `jcs_ct.core.types`."""

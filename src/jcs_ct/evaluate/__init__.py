"""Files to scores: what `jcs evaluate` does. Reports and pictures are bytes; the command writes them.

inputs.py            the slices of a data set, and the predictions that belong to them (matching.py: by their names)
maps.py              maps from files
slice_reader.py      maps from a network; what speaks against a slice
segment.py           lesion maps against masks
classify.py          probabilities against labels, per slice, source and patient
explain.py           attention maps against masks, and against the network
study.py             verdicts of whole studies against labels
record.py            what scores are of; side_by_side.py compares those of the same slices
tables.py            JSON, Markdown and CSV
"""

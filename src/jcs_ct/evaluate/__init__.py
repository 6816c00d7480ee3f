"""Files to scores: what `jcs evaluate` does. Reports and pictures are bytes; the command writes them.

inputs.py            the slices of a data set, and the predictions that belong to them (matching.py: by their names)
maps.py, predict.py  maps from files, and from a network
segment.py           lesion maps against masks; segment_report.py: what is reported of them
classify.py          probabilities against labels, per slice, source and patient; classify_report.py
explain.py           attention maps against masks, and against the network
record.py            what scores are of; side_by_side.py compares those of the same slices
tables.py            JSON, Markdown and CSV
"""

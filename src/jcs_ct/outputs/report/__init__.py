"""The report of a study: its schema, the table of its slices, and the page that a radiologist reads.

`encode_frame` packs each slice while it passes, `write_html` makes one self-contained file of the packed slices and
of the dict that `report.json` holds; docs/report.md says what every number means.
"""

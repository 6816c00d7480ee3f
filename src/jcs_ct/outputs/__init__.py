"""Results to files: maps, overlays and tables."""

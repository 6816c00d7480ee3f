"""Archives larger than one machine: object stores, the units that are fetched from them, workers of a cluster."""

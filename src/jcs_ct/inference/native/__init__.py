"""The runtime `native`: kernels of this package, written for the published networks and compiled on the machine."""

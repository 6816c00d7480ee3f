"""How fast networks, whole studies and training are, against stated baselines."""

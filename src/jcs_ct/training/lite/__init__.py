"""Training of `jcs-lite`: both tasks together, from slices with masks and slices with labels.

config.py   what a run is                      augment.py  what destroys the traces of a source
data.py     slices, steps, folds               module.py   loss, optimiser, averaged weights
run.py      from configuration to folder       score.py    held-out slices → scores
encoder.py  ImageNet weights of the encoder
"""

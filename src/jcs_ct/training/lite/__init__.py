"""Training of `jcs-lite`: both tasks together, from slices with masks and slices with labels.

config.py   what a run is                      augment.py    what destroys the traces of a source
corpus.py   data sets, folds, fingerprint      outlook.py    what can be learned and scored, before the first step
data.py     slices and steps                   module.py     loss, optimiser, averaged weights
run.py      from configuration to folder       folds.py      all folds in one run
score.py    held-out slices → scores           build.py      the recipe of the shipped weights
encoder.py  ImageNet weights of the encoder    calibrate.py  probabilities that keep their word
"""

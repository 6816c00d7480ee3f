"""A whole study from its slices to the patient's verdict and the files of a clinic."""

"""NIfTI volumes, in and out. nibabel is loaded late."""

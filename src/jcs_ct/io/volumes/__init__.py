"""Volumes that are neither DICOM nor NIfTI files: MetaImage, NRRD, and what a program holds in memory."""

"""DICOM series as volumes. pydicom is loaded late."""

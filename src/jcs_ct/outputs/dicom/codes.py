"""Coded terms of SEG and SR: SNOMED CT, DICOM (PS3.16), UCUM, and terms of our own where none fits.

Our own have the private designator 99JCSCT, which the standard sets aside for this (PS3.16 section 8.2).
"""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

PRODUCT = "jcs-ct"
RESEARCH = "Research use only, not a medical device"

COVID_19 = Code("840539006", "SCT", "Disease caused by SARS-CoV-2 (COVID-19)")
POSITIVE = Code("10828004", "SCT", "Positive")
NEGATIVE = Code("260385009", "SCT", "Negative")
INDETERMINATE = codes.SCT.Indeterminate
YES = Code("373066001", "SCT", "Yes")
NO = Code("373067005", "SCT", "No")
LESION = codes.SCT.Lesion
LUNG = codes.SCT.Lung
RIGHT = codes.SCT.Right
LEFT = codes.SCT.Left
ABNORMAL = codes.SCT.MorphologicallyAbnormalStructure
ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
NETWORK = codes.DCM.ArtificialIntelligence

ML = Code("mL", "UCUM", "mL")
SQUARE_MM = codes.UCUM.SquareMillimeter
PERCENT = codes.UCUM.Percent
HOUNSFIELD = codes.UCUM.HounsfieldUnit
UNITY = codes.UCUM.NoUnits

VOLUME = codes.SCT.Volume
AREA = codes.SCT.Area
LESION_COUNT = Code("246206008", "SCT", "Number of lesions")
MEAN_ATTENUATION = Code("112181", "DCM", "Mean Attenuation Coefficient")
SEVERITY = Code("246112005", "SCT", "Severity")
COMMENT = codes.DCM.Comment
DEVICE = codes.DCM.Device
REPORT = codes.DCM.ImagingMeasurementReport
CHEST_CT = Code("24627-2", "LN", "CT Chest")

SCHEME = "99JCSCT"


def own(value: str, meaning: str) -> Code:
    """Return a term of our own."""
    return Code(value, SCHEME, meaning)


PROBABILITY = own("PROBABILITY", "Probability of COVID-19")
SCORE = own("SCORE", "Score of the patient rule")
LIMIT = own("LIMIT", "Limit of the patient rule")
RELIABLE = own("RELIABLE", "Verdict reliable according to the checks of the study")
LESION_VOLUME = own("LESION_VOLUME", "Volume of lesions in the lung")
LESION_SHARE = own("LESION_SHARE", "Share of the lung volume that is lesion")
LESION_AREA_SHARE = own("LESION_AREA_SHARE", "Share of the lung area of the slice that is lesion")
LARGEST = own("LARGEST", "Volume of the largest lesion")
GROUND_GLASS = own("GROUND_GLASS", "Ground-glass share of the lesion volume")
CONSOLIDATION = own("CONSOLIDATION", "Consolidation share of the lesion volume")
SEVERITY_SCORE = own("SEVERITY_SCORE", "Severity score from the share of the lung that is lesion")


def scheme() -> CodingSchemeIdentificationItem:
    """Return the entry that says whose 99JCSCT is."""
    return CodingSchemeIdentificationItem(designator=SCHEME, name="Terms of jcs-ct", responsible_organization=PRODUCT)


def short(text: str) -> str:
    """Return what fits a long string (LO, 64 characters) or the meaning of a code."""
    return text if len(text) <= 64 else f"{text[:61]}..."

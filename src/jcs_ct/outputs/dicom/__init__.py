"""Results as DICOM: a segmentation (SEG) and a structured report (SR) beside the images they are about.

Import it late: highdicom and pydicom take a while to load. Both files hold the identity of the patient, because the
standard has them in the patient's study; nothing else the package writes does.
"""

from jcs_ct.outputs.dicom.seg import write_seg
from jcs_ct.outputs.dicom.sr import write_sr

__all__ = ["write_seg", "write_sr"]

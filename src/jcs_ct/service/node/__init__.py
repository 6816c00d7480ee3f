"""`jcs node`: a DICOM node (C-STORE, C-ECHO) that feeds the service. Needs the extra `node`.

The data flow: receiver (who may send; one file an image, on the disk before it is answered for) → arrivals (a folder a
study; what has been quiet for a while becomes a study of the record).
"""

"""`jcs watch orthanc`: studies of an Orthanc become studies of the service, and their SEG and SR go back.

The data flow: orthanc (REST and DICOMweb) → ledger (cursor, dirty studies, versions: one database with the record) →
watcher (one round after the other; every step may be repeated after a stop) → orthanc.
"""

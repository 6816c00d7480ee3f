"""`jcs serve` and `jcs work`: studies over HTTP, a record of each, workers that may die. Needs the extra `service`.

The data flow: app → receive (upload to disk) → record (one row a study) → supervisor → worker → diagnosis (one study) →
files (results in a folder of their attempt) → record. Everything that two processes must agree on is in the record.
"""

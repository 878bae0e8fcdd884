"""DICOMweb archives that are searched for new series, which go into the spool and the queue."""

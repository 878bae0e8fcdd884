"""The DICOMweb protocol (PS3.18): requests, bodies of several parts, search, retrieve, store."""

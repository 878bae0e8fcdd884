"""The DICOM node: receives series, restores them by rules, and sends derived series back."""

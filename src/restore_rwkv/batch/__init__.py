"""Many scans, each restored in isolation: BIDS datasets."""

"""The page that restores in the browser, without a server: its files, and how they are put together."""

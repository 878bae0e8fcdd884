"""The page that restores in the browser, without a server, and how it is put together."""

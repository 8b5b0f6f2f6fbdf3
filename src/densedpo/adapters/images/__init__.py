"""Models of single images: they draw the first frames that video models continue."""

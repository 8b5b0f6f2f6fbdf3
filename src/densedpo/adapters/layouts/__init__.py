"""Model directories as files, a module for each family: what must be there, sizes and defaults (no torch)."""

"""The guard of an online run: what it looks at, what it saw, and what it gives reason for."""

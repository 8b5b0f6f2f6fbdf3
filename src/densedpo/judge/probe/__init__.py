"""`judge probe`: whether a judge's answers can be trusted, and why or why not."""

"""Ordered changes of labels.db, run by `densedpo.judge.store` when it opens an older or an empty database."""

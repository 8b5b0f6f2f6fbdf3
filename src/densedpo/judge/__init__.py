"""Stage 3: pairs to judgements (labels.db, append-only) and judgements to preferences. Imports no torch."""

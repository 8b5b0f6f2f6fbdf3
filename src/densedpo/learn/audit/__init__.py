"""Which labels to look at again: those that models trained without them disagree with."""

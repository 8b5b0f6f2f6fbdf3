"""What is seen of a run while it goes: the metrics log, and the validation pairs under fixed draws."""

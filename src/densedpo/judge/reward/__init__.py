"""Judges that score each clip by itself: the shipped video-quality network, and scorers behind HTTP."""

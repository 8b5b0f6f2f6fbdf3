"""How much noise still keeps the motion of a real clip: the range of eta for guided pairs of a model."""

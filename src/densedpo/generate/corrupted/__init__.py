"""Pairs of a real clip and a worse copy of it: nobody has to label them, since what was done to the copy is known."""

"""Stage 2: pairs of clips for one prompt, from independent noises or from one real clip."""

"""Studies: people judge pairs. Who gets which item, what they chose, and what it adds up to; the web app is `web`."""

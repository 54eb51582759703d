"""From the model's raw vectors to the bytes of an answer: slice, normalise, quantise, encode."""

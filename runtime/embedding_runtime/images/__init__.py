"""Images as input: finding them in a request, decoding them safely, cutting them into tiles."""

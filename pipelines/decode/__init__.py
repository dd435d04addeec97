"""From a file to frames: probing it, cutting it into chunks, and decoding them."""

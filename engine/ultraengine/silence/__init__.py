"""What becomes of a TCP connection whose other end is gone without a word."""

"""Text to tokens: corpora (read through TFDS), the shared subword vocabulary, token arrays, packing."""

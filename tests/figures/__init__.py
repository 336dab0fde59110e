"""The figures of the Chord paper, reproduced on the product's own ring code (test support)."""

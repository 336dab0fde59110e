"""Bytes between two nodes (floor 1): messages, framing, connections and TLS."""

"""What a node keeps when its process ends: opaque bytes, in one file or none (floor 1)."""

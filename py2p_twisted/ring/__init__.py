"""The Chord ring as pure rules (floor 0): the circle, the pointers, look-ups and fingers."""

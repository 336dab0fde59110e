"""The table as pure rules (floor 0): registers, groups and their epochs, and the directory."""

"""Draws one picture: pen, hair, costume, ornaments, background, and the character they make."""

"""Text, character by character or byte by byte."""

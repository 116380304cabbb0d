"""Music, step by step."""

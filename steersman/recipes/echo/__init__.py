"""The smallest task that needs a memory."""

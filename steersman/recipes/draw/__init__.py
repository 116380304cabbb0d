"""Pictures drawn step by step."""

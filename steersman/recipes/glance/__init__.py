"""Pictures read glimpse by glimpse."""

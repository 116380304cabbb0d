"""The direction of the next day, or of the next events of an order book."""

"""Tables of anything over time: forecasts, a class a series, an answer at every step."""

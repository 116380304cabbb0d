"""Tasks: scores beside baselines, and the page that says so."""

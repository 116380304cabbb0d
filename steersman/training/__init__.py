"""Recipe and run, and the loop that trains them."""

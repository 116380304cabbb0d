"""A model live: the server, its page, and the person at the wheel."""

"""A model live: a server of steps for other programs, and one show with a page to watch it on."""

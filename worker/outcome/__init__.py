"""What an attempt means: the class of a reply, and what follows for job and page."""

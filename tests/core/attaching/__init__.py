"""What can be done with an attached model, and what the attachment answers."""

"""What a process answers as a leader of copies, and as one of them."""

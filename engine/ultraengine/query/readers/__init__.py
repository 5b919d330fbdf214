"""The databases that reads are answered from, and which one a URL means."""

"""One connection to MariaDB or MySQL."""

"""MariaDB and MySQL as a target: `dialect` says it in SQL, `driver` runs it."""

"""`ultra import`: rows of any table become commands, by a mapping file (`docs/import.md`)."""

"""Messages of domains: from the outcomes that ask for them to the keys they are for."""

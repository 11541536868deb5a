"""Everything under infra/ through the validator that it has: `make infra-check`."""

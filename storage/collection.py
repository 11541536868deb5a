"""A collection in a store: its name, and where its records lie."""


def folder(collection: str) -> str:
    return f"_revector/{collection}"

"""What ends the story early."""


class DemoError(Exception):
    """Something that the story tells does not hold; the text says what."""


def require(holds: bool, otherwise: str) -> None:
    """Raises DemoError, saying `otherwise`, unless it `holds`."""
    if not holds:
        raise DemoError(otherwise)

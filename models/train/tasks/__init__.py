"""What is asked and answered: every task draws its pictures and questions from one `Draw` and gives an `Ask`."""

from dataclasses import dataclass, field

IMAGE = "<ImageHere>"


@dataclass(slots=True)
class Ask:
    """A question, the one right answer, and the pictures of its `<ImageHere>`s in order."""

    query: str
    answer: str
    scenes: list = field(default_factory=list)
    forced: str = ""  # the beginning of the answer that the caller puts there
    short: str | None = None  # the answer in a word or two, where there is one

"""One source of chance for everything: splitmix64, and the few ways in which we draw from it.

Integers only, so another language gives the same scenes from the same seed. Each method says how many numbers it takes.
"""

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(state):
    """splitmix64's output function: one 64-bit word to another."""
    z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


class Draw:
    """A stream of draws that a seed fixes."""

    __slots__ = ("state",)

    def __init__(self, seed):
        self.state = seed & MASK

    def next(self):
        """The next 64 bits (takes one)."""
        self.state = (self.state + GAMMA) & MASK
        return mix(self.state)

    def below(self, n):
        """0..n-1 (takes one): the high 32 bits times n, over 2^32."""
        return ((self.next() >> 32) * n) >> 32

    def between(self, low, high):
        """low..high, both included (takes one)."""
        return low + self.below(high - low + 1)

    def chance(self, percent):
        """True in `percent` of 100 cases (takes one)."""
        return self.below(100) < percent

    def pick(self, items):
        """One of a sequence (takes one)."""
        return items[self.below(len(items))]

    def weighted(self, weights):
        """An index of `weights` (whole numbers), each as often as its weight says (takes one)."""
        left = self.below(sum(weights))
        for index, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return index
        raise AssertionError("weights must be positive")

    def sample(self, items, count):
        """`count` different items in drawn order (takes `count`): the front of a Fisher-Yates shuffle."""
        pool = list(items)
        for i in range(count):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def shuffled(self, items):
        """All items in drawn order (takes as many as there are)."""
        return self.sample(items, len(items))

"""Files as they are read."""

import io

import pytest

from steersman.files import PIECE, read_most


class Asked(io.BytesIO):
    """A stream that gives less than it is asked for, as packed ones do, and remembers how much that was."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self.asked: list[int] = []

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        self.asked.append(size)
        return super().read(min(size, 7_000))


@pytest.mark.parametrize("most", [0, 10, 20_000, 2**40])
def test_a_stream_is_read_a_piece_at_a_time_and_no_further_than_one_byte_beyond(most):
    data = bytes(range(256)) * 80
    stream = Asked(data)
    assert read_most(stream, most) == data[: most + 1]
    assert 0 < max(stream.asked) <= min(PIECE, most + 1)

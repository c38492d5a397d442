"""Frames' memory is used again only when nobody holds it."""

import numpy as np

from mlopsdeploy.edge.frames import Buffers


def test_memory_is_used_again_only_when_nobody_holds_it():
    buffers = Buffers(limit=2)
    assert buffers.take() is None
    image = np.zeros((4, 4, 3), np.uint8)
    address = image.ctypes.data
    buffers.add(image)
    assert buffers.take() is None, "the test itself holds it"
    view = image[None]
    del image
    assert buffers.take() is None, "a view of it is held"
    del view
    again = buffers.take()
    assert again.ctypes.data == address


def test_memory_of_another_size_is_given_up_and_there_is_a_limit():
    buffers = Buffers(limit=2)
    for _ in range(5):
        buffers.add(np.zeros((4, 4, 3), np.uint8))
    assert len(buffers._buffers) == 2
    buffers.add(np.zeros((8, 8, 3), np.uint8))
    assert [buffer.shape for buffer in buffers._buffers] == [(8, 8, 3)]

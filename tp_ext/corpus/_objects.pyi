import numpy as np
from numpy.typing import NDArray

def texts(
    content: bytes, key: bytes, starts: NDArray[np.int64], stops: NDArray[np.int64],
    text_starts: NDArray[np.int64], text_stops: NDArray[np.int64], certain: NDArray[np.bool_],
) -> bytes: ...

"""llama.cpp's own quantizer as a process of its own: LIBRARIES TYPE SOURCE TARGET. `export.py` runs it."""

import ctypes
import sys
from pathlib import Path

FILE_TYPES = {"q8_0": 7, "q4_0": 2, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18}


class Parameters(ctypes.Structure):
    """The first two of `llama_model_quantize_params`, and room for the rest."""

    _fields_ = (("nthread", ctypes.c_int32), ("ftype", ctypes.c_int32), ("rest", ctypes.c_byte * 504))


def main() -> int:
    """Quantize one file with one thread."""
    libraries, kind, source, target = sys.argv[1:]
    for name in ("libggml-base.so", next(Path(libraries).glob("libggml.v*.so")).name):
        ggml = ctypes.CDLL(str(Path(libraries) / name), mode=ctypes.RTLD_GLOBAL)
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    ggml.ggml_backend_load(str(Path(libraries) / "libggml-cpu-haswell.so").encode())
    llama = ctypes.CDLL(str(next(Path(libraries).glob("libllama.v*.so"))))
    llama.llama_model_quantize_default_params.restype = Parameters
    llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Parameters)]
    llama.llama_backend_init()
    parameters = llama.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype = 1, FILE_TYPES[kind]
    status: int = llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
    return status


if __name__ == "__main__":
    sys.exit(main())

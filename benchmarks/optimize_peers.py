"""The same models through LiteRT and ONNX Runtime, in an environment of their own that is made when needed.

`compare` is for `optimize.py`; it runs this file there: python optimize_peers.py WORK SECONDS FOLDER RESULT…
which converts, and times everything in random turn inside one process, on as many threads as there are cores.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optimize_tool import size_bytes

HERE = Path(__file__).parent
# tf2onnx wants a protobuf that is not the one the project is pinned to.
PACKAGES = ("tensorflow-cpu==2.21.*", "tf2onnx==1.17.0", "onnxruntime==1.32.0", "ai-edge-litert==2.3.0")
# From here on tf2onnx keeps weights beside the graph; with them in it, VGG16 took more than 24 GB. It asks for a name
# that NumPy 2 does not have any more.
LARGE_BYTES = 400_000_000
LARGE_CONVERT = (
    "import numpy, runpy; numpy.product = numpy.prod; runpy.run_module('tf2onnx.convert', run_name='__main__')"
)
COMPARED = ("lossless", "fold", "constants", "float16", "int8")
Call = Callable[[Any], Any]


def compare(folder: Path, work: Path, results: dict[str, Path], seconds: float) -> dict[str, Any]:
    """Return sizes, agreement and latencies by variant, or {"error": why}."""
    python = work / "venv/bin/python"
    if not (work / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        if subprocess.run(install, check=False, stdout=sys.stderr).returncode:
            return {"error": f"cannot install {', '.join(PACKAGES)}"}
        (work / "installed").touch()
    paths = [str(path) for name, path in results.items() if name in COMPARED]
    command = [str(python), __file__, str(work / folder.name), str(seconds), str(folder), *paths]
    ran = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    return json.loads(ran.stdout.splitlines()[-1]) if ran.returncode == 0 else {"error": f"ended with {ran.returncode}"}


def convert_litert(model: Path, work: Path, signature: str) -> dict[str, Path]:
    """Write float32, float16 and dynamic int8 with TensorFlow's converter."""
    import tensorflow as tf

    files = {}
    for form in ("float32", "float16", "int8"):
        converter = tf.lite.TFLiteConverter.from_saved_model(str(model), signature_keys=[signature])
        if form != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if form == "float16":
            converter.target_spec.supported_types = [tf.float16]
        files[f"LiteRT {form}"] = work / f"{form}.tflite"
        files[f"LiteRT {form}"].write_bytes(converter.convert())
    return files


def convert_onnx(model: Path, work: Path, signature: str) -> dict[str, Path]:
    """Write float32 with tf2onnx and dynamic int8 with ONNX Runtime's quantizer."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    is_large = size_bytes(model) > LARGE_BYTES
    plain, small = (_emptied(work / form) / "model.onnx" for form in ("onnx-float32", "onnx-int8"))
    written = work / "large.zip" if is_large else plain
    command = [sys.executable, *(("-c", LARGE_CONVERT, "--large_model") if is_large else ("-m", "tf2onnx.convert"))]
    command += ["--saved-model", str(model), "--output", str(written), "--signature_def", signature, "--opset", "17"]
    ran = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ran.returncode < 0:  # the kernel's, where the memory does not do
        raise RuntimeError(f"tf2onnx was ended by {signal.Signals(-ran.returncode).name}")
    if ran.returncode:
        raise RuntimeError(ran.stderr.strip().splitlines()[-1])
    if is_large:
        shutil.unpack_archive(written, plain.parent)
        written.unlink()
        (plain.parent / "__MODEL_PROTO.onnx").rename(plain)
    # Its convolutions take unsigned weights only (https://github.com/microsoft/onnxruntime/issues/3130).
    quantize_dynamic(plain, small, weight_type=QuantType.QUInt8, use_external_data_format=is_large)
    return {"ONNX Runtime float32": plain, "ONNX Runtime int8": small}


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def litert_call(file: Path, batch: int) -> Call:
    """Return a call of one LiteRT model at a fixed batch."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=os.cpu_count())
    entry, leave = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(entry["index"], [batch, *entry["shape"][1:]])
    interpreter.allocate_tensors()

    def call(x: Any) -> Any:
        interpreter.set_tensor(entry["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(leave["index"])

    return call


def onnx_call(file: Path) -> Call:
    """Return a call of one ONNX model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def main() -> None:
    """Convert, compare the answers, time, and print one JSON document as the last line."""
    import numpy as np
    from optimize_measure import BATCHES, Served, read_samples, time_calls

    work, seconds, folder, *results = sys.argv[1:]
    about = json.loads((Path(folder) / "about.json").read_text())
    Path(work).mkdir(parents=True, exist_ok=True)
    model, files, failed, conversion = Path(folder) / "model", {}, {}, {}
    for what, convert in (("LiteRT", convert_litert), ("ONNX Runtime", convert_onnx)):
        started = time.perf_counter()
        try:
            # Of a large model tf2onnx gets one copy of the weights; Keras's export has two.
            is_large = convert is convert_onnx and size_bytes(model) > LARGE_BYTES and results
            files |= convert(Path(results[0]) if is_large else model, Path(work), about["signature"])
        except Exception as error:  # whatever a converter says is a line of the table
            failed[what] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
        conversion[what] = round(time.perf_counter() - started, 2)
    served = {"original": Served(model, about["signature"])}
    served |= {f"servegraph {Path(path).name}": Served(Path(path), about["signature"]) for path in results}
    inputs, _ = read_samples(Path(folder), served["original"])
    ((name, values),) = inputs.items()
    output = about["output"] or next(iter(served["original"].outputs))
    found: dict[str, Any] = {"failed": failed, "conversion_s": conversion, "latency": {}, "answers": {}}
    found["bytes"] = {form: size_bytes(file.parent if file.suffix == ".onnx" else file) for form, file in files.items()}
    for batch in BATCHES:
        # Made when needed: every interpreter of LiteRT keeps the memory of its batch.
        calls: dict[str, Call] = {form: _tensorflow_call(one, name, output) for form, one in served.items()}
        for form, file in files.items():
            calls[form] = litert_call(file, batch) if form.startswith("LiteRT") else onnx_call(file)
        request = np.resize(values, (batch, *values.shape[1:]))
        found["latency"][str(batch)] = time_calls(calls, request, float(seconds))
        answers = {form: np.array(call(request)) for form, call in calls.items()}
        found["answers"] = {
            form: {
                "agreement": float(np.mean(answer.argmax(-1) == answers["original"].argmax(-1))),
                "max_abs_diff": float(np.abs(answer - answers["original"]).max()),
            }
            for form, answer in answers.items()
        }
    print(json.dumps(found))


def _tensorflow_call(served: Any, name: str, output: str) -> Call:
    call = served.prepare([output])
    return lambda x: call({name: x})[output]


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()

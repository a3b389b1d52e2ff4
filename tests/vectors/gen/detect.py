"""Writes tests/vectors/detect.h: what PyTorch, Pillow (before 13) and scikit-learn make of what tests/detector.c
makes again. Needs torch, torchvision, efficientnet_pytorch, pillow, scikit-learn, scipy:

    python3 tests/vectors/gen/detect.py > tests/vectors/detect.h
"""
import sys

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

sys.path.insert(0, sys.path[0])
import state_dict as sd  # noqa: E402

assert int(PIL.__version__.split(".")[0]) < 13, "Pillow 13 takes the passes of some images in another order"
SIZE, GRID, USED = 64, 4, [2, 4, 10, 14]
print("/* Written by gen/detect.py. */")


def uniform(t, n):
    return np.array([sd.uniform(t, i) for i in range(n)])


def show(name, values, kind="float"):
    print(f"static const {kind} {name}[] = {{")
    texts = [f"{v:.9g}f" if kind == "float" else f"{v:.17g}" if kind == "double" else str(v) for v in values]
    texts = [t.replace("f", ".0f") if kind == "float" and t.strip("-f").isdigit() else t for t in texts]
    line = "   "
    for t in texts:
        if len(line) + len(t) > 104:
            print(line)
            line = "   "
        line += f" {t},"
    print(line + "\n};")


# ---- Pillow's resize, of an image that the formula gives

for n, (w, h, to_w, to_h) in enumerate([(37, 23, 16, 16), (5, 9, 16, 12), (64, 3, 7, 8), (1, 1, 4, 3)]):
    x = (uniform(100 + n, w * h * 3) * 256).astype(np.uint8).reshape(h, w, 3)
    show(f"resized_{n}", np.asarray(Image.fromarray(x).resize((to_w, to_h), Image.BILINEAR)).ravel(),
         "unsigned char")

# ---- metrics: of images with ties, and of maps against masks

score, bad = np.round(uniform(200, 60) * 20), uniform(201, 60) + uniform(200, 60) > 1.0
precision, recall, _ = precision_recall_curve(bad, score)
show("image_metrics", [roc_auc_score(bad, score), average_precision_score(bad, score),
                       np.max(2 * precision * recall / np.maximum(precision + recall, 1e-30))], "double")
maps = uniform(202, 5 * 16).reshape(5, 4, 4).astype(np.float32)
masks = np.zeros((5, 32, 32), bool)
for i in range(4):
    for k in range(3):
        y, x, s = (sd.uniform(203 + k, 3 * i + j) for j in range(3))
        y, x, s = int(y * 28), int(x * 28), 1 + int(s * 6)
        masks[i, y:y + s, x:x + s] = True
big = F.interpolate(torch.from_numpy(maps)[:, None].double(), size=(32, 32), mode="bilinear",
                    align_corners=False)[:, 0].numpy()


def aupro(limit):
    """At every threshold directly: the mean over regions of the share that is above it."""
    regions = []
    for m, b in zip(masks, big):
        label, n = ndimage.label(m, np.ones((3, 3)))
        regions += [np.sort(b[label == k + 1]) for k in range(n)]
    good = np.sort(big[~masks])
    x, y = [0.0], [0.0]
    for t in np.unique(big)[::-1]:
        x.append(1 - np.searchsorted(good, t, "left") / len(good))
        y.append(np.mean([1 - np.searchsorted(r, t, "left") / len(r) for r in regions]))
    k = int(np.searchsorted(x, limit, "right"))
    end = np.interp(limit, x[k - 1:k + 1], y[k - 1:k + 1])
    return np.trapezoid(y[:k] + [end], x[:k] + [limit]) / limit, len(regions)


show("pixel_metrics", [roc_auc_score(masks.ravel(), big.ravel()), aupro(0.3)[0], aupro(0.05)[0],
                       average_precision_score(masks.ravel(), big.ravel()), aupro(0.3)[1]], "double")

# ---- features of networks


def pad(x, k, stride, padding, native):
    size = native if padding == "static" else x.shape[-1]
    if padding == "symmetric":
        return F.pad(x, [(k - 1) // 2] * 4)
    total = max((-(-size // stride) - 1) * stride + k - size, 0)
    return F.pad(x, [total // 2, total - total // 2] * 2)


def features(kind, style, padding, eps, image):
    """Plain functions of PyTorch, block by block."""
    w = {name: torch.from_numpy(low + spread * uniform(t, int(np.prod(shape)))).reshape(shape)
         for t, name, shape, low, spread in sd.tensors(kind, style)}
    w = {k: v.float().double() for k, v in w.items()}

    def act(x):
        return F.relu6(x) if kind == "lite0" else F.silu(x)

    def norm(x, name):
        return F.batch_norm(x, w[name + ".running_mean"], w[name + ".running_var"], w[name + ".weight"],
                            w[name + ".bias"], False, 0, eps)

    stem = list(sd.layers(kind, style))[0]
    native = 224
    x = act(norm(F.conv2d(pad(image, 3, 2, padding, native), w[stem[0] + ".weight"], stride=2), stem[1]))
    native, out = 112, []
    for i, (s, r, before, hidden, after, k, stride) in enumerate(sd.blocks()):
        n, y = sd.names(style, i, s, r, s > 0, kind == "b0"), x
        if s:
            y = act(norm(F.conv2d(y, w[n["expand"][0] + ".weight"]), n["expand"][1]))
        y = F.conv2d(pad(y, k, stride, padding, native), w[n["depthwise"][0] + ".weight"], stride=stride,
                     groups=hidden)
        y = act(norm(y, n["depthwise"][1]))
        if kind == "b0":
            g = y.mean((2, 3), keepdim=True)
            g = act(F.conv2d(g, w[n["reduce"][0] + ".weight"], w[n["reduce"][0] + ".bias"]))
            g = F.conv2d(g, w[n["excite"][0] + ".weight"], w[n["excite"][0] + ".bias"])
            y = y * torch.sigmoid(g)
        y = norm(F.conv2d(y, w[n["project"][0] + ".weight"]), n["project"][1])
        x = x + y if stride == 1 and before == after else y
        native = -(-native // stride)
        out.append(x)
    return out, w


def to_grid(x):
    side = x.shape[-1]
    if side % GRID == 0:
        return F.avg_pool2d(x, side // GRID)
    return F.interpolate(x, size=(GRID, GRID), mode="bilinear", align_corners=False)


def check_against_libraries(style, out, w, image):
    """The plain functions above are what the libraries compute."""
    if style == "efficientnet_pytorch":
        from efficientnet_pytorch import EfficientNet
        net, got = EfficientNet.from_name("efficientnet-b0").double().eval(), []
        missing = net.load_state_dict(w, strict=False)
        x = net._swish(net._bn0(net._conv_stem(image)))
        for b in net._blocks:
            x = b(x)
            got.append(x)
    else:
        import torchvision
        net, got = torchvision.models.efficientnet_b0().double().eval(), []
        missing = net.load_state_dict(w, strict=False)
        x = net.features[0](image)
        for stage in net.features[1:8]:
            for b in stage:
                x = b(x)
                got.append(x)
    assert not missing.unexpected_keys, missing.unexpected_keys
    left = [k for k in missing.missing_keys if "tracked" not in k]
    assert all(k.startswith(("_conv_head", "_bn1", "_fc", "features.8", "classifier")) for k in left), left
    for a, b in zip(out, got):
        assert (a - b).abs().max() < 1e-9 * b.abs().max()


rgb = (uniform(300, SIZE * SIZE * 3) * 256).astype(np.uint8).reshape(SIZE, SIZE, 3)
with torch.no_grad():
    for kind, style, padding, eps in [("b0", "efficientnet_pytorch", "static", 1e-3),
                                      ("lite0", "timm", "same", 1e-3), ("b0", "timm", "symmetric", 1e-5),
                                      ("b0", "torchvision", "symmetric", 1e-5)]:
        x = torch.from_numpy(rgb).double().permute(2, 0, 1)[None] / 255
        mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if kind == "b0" else ([.5] * 3, [.5] * 3)
        x = (x - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std).double()[:, None, None]
        out, w = features(kind, style, padding, eps, x)
        if style != "timm":
            check_against_libraries(style, out, w, x)
        f = torch.cat([to_grid(out[b]) for b in USED], 1)[0].permute(1, 2, 0).reshape(GRID * GRID, -1)
        show(f"features_{kind}_{style}_{padding}", f[:, ::23].ravel().tolist())

"""Show where an image speaks for a class: Grad-CAM on the patch tokens of a vision transformer.

Selvaraju et al. 2017, arXiv:1610.02391, with the element-wise product of HiResCAM (Draelos and Carin 2020,
arXiv:2011.08891): a token's share of the logit is the sum over its features of gradient times activation.
"""

import numpy as np
import torch
import torch.nn.functional as F

from shared.models.classifier import Classifier


def saliency(classifier: Classifier, x: torch.Tensor, target: torch.Tensor, layer: int = 1) -> np.ndarray:
    """Return where images (N, C, S, S) speak for their classes `target` (N,): (N, S, S) float32 in [0, 1].

    1 is the place in each image that speaks for it most, 0 what does not or speaks against it. layer: number of the
    block whose output is taken. Deeper tokens know more, but mix what they see over the image.
    """
    kept: list[torch.Tensor] = []
    hook = classifier.encoder.blocks[layer - 1].register_forward_hook(lambda _, __, output: kept.append(output))
    try:
        with torch.enable_grad():
            logits = classifier(x.requires_grad_())
            others = logits.masked_fill(F.one_hot(target, logits.shape[1]).bool(), -torch.inf).logsumexp(dim=1)
            margin = logits.gather(1, target[:, None])[:, 0] - others
            [gradient] = torch.autograd.grad(margin.sum(), kept)
    finally:
        hook.remove()
    rows, columns = classifier.encoder.grid(x)
    share = (gradient * kept[0]).sum(dim=2)[:, -rows * columns :].detach().reshape(-1, 1, rows, columns)
    image = F.interpolate(share.clamp_min(0), size=x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return (image / image.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)).cpu().numpy()

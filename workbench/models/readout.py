"""From the last residual stream to logits."""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.forward import lock
from workbench.models.sites import TransformerBridge


def readout(model: TransformerBridge, resid: Float[Tensor, "row d_model"]) -> Float[Tensor, "d_model d_vocab"]:
    """Return what a small change of the last residual stream does to each logit, on average over ``resid``.

    The mean Jacobian of the final norm, with the change of its scale, times the unembedding; a soft cap on the logits
    behind them is left out. ``W_dec @ readout(model, resid)`` is the direct effect of features on the logits, in logits
    for a code of one.
    """
    d_model = resid.shape[-1]
    jacobian = torch.zeros(d_model, d_model, device=resid.device)
    with lock(model), torch.enable_grad():
        x = resid.detach().float().requires_grad_()
        y = model.ln_final(x[None].to(model.W_U.dtype))[0]
        for i in range(d_model):
            (row,) = torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)
            jacobian[i] = row.mean(0)
    return jacobian.T @ model.W_U.detach().float()

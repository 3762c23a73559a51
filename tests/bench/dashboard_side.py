"""The side of sae_dashboard in bench_features.py, in an environment of its own: ``dashboard_side.py FOLDER MODEL``.

In FOLDER lie ``tokens.safetensors`` and ``dictionary``, in SAELens's format; MODEL is a GPT-NeoX directory. To a line
"describe" it answers with the CPU-seconds of feature data for all features, to "tell" with what was found. The first
run fills its cache of activations, which later ones read as ours read a store.
"""

# pyright: reportMissingImports=false
import json
import sys
import time
from pathlib import Path

import torch
from sae_dashboard.sae_vis_data import SaeVisConfig, SaeVisData
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE, HookedSAETransformer
from safetensors.torch import load_file
from transformer_lens import loading_from_pretrained as loading
from transformer_lens.pretrained.weight_conversions import convert_neox_weights
from transformers import AutoModelForCausalLM


def main(folder: Path, directory: Path) -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    tokens = load_file(folder / "tokens.safetensors")["tokens"]
    sae = SAE.load_from_disk(folder / "dictionary")
    sae.cfg.rescale_acts_by_decoder_norm = True  # the norms are one; without this it refuses every topk
    config = SaeVisConfig(
        hook_point=sae.cfg.metadata.hook_name,
        features=list(range(sae.cfg.d_sae)),
        # All at once: in batches of 256, its default, it takes a fifth longer, in batches of 64 twice as long.
        minibatch_size_features=sae.cfg.d_sae,
        minibatch_size_tokens=1024,
        cache_dir=folder / "cache",
    )
    model, data = read(directory), SaeVisData(config)
    for line in sys.stdin:
        if line.strip() == "describe":
            started = time.process_time()
            data = SaeVisRunner(config).run(encoder=sae, model=model, tokens=tokens)
            tell(cpu=time.process_time() - started)
        else:
            raised = [data.feature_data_dict[i].logits_table_data.top_token_ids for i in config.features]
            tell(density=data.feature_stats.frac_nonzero, max=data.feature_stats.max, raised=raised)


def tell(**what: object) -> None:
    print("SIDE " + json.dumps(what), flush=True)


def read(directory: Path) -> HookedSAETransformer:
    """Return the model with its weights as they are; its own from_pretrained takes no directory."""
    hf_model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    config = loading.get_pretrained_model_config(str(directory), device="cpu", dtype=torch.float32)
    config.parallel_attn_mlp = hf_model.config.use_parallel_residual  # it takes every GPT-NeoX for a parallel one
    config.tokenizer_name = None
    model = HookedSAETransformer(config)
    model.load_state_dict(model.fill_missing_keys(convert_neox_weights(hf_model, config)), strict=False)
    return model


if __name__ == "__main__":
    with torch.no_grad():
        main(Path(sys.argv[1]), Path(sys.argv[2]))

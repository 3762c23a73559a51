"""What other packages write and read, run in an environment of each, not in ours.

    PYTHON tests/peers.py make saelens tests/fixtures      # how the fixtures were made
    PYTHON tests/peers.py read saelens DIRECTORY …         # what its own loader makes of what we wrote

``make`` writes small dictionaries with the package's own classes, and beside each ``expected.safetensors``:
activations ``x``, their ``codes`` and the reconstruction ``y``. ``read`` writes the same of x.safetensors there.
tests/test_formats.py runs both where WORKBENCH_PEERS names a folder of environments called as the packages are.
"""

# pyright: reportMissingImports=false
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

D, N, K = 8, 24, 4


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR)


GENERATOR = torch.Generator().manual_seed(0)


@torch.no_grad()
def shaken(module: Any) -> Any:
    """Give every parameter numbers of its own, decoder rows of any length, and thresholds that matter."""
    for name, parameter in module.named_parameters():
        parameter.copy_(random(*parameter.shape) / 2 + (name == "threshold"))
    return module


def expect(directory: Path, x: torch.Tensor, codes: torch.Tensor, y: torch.Tensor) -> None:
    tensors = {"x": x, "codes": codes, "y": y}
    save_file(
        {key: tensor.detach().contiguous() for key, tensor in tensors.items()}, directory / "expected.safetensors"
    )


def make_saelens(root: Path) -> None:
    import sae_lens as sl
    from sae_lens.saes.sae import SAEMetadata

    def sites(hook: str = "blocks.1.hook_resid_post", **more):
        return SAEMetadata(hook_name=hook, model_name="tiny", context_size=128, **more)

    shape = {"d_in": D, "d_sae": N}
    across = {"d_out": 6, "apply_b_dec_to_input": False}
    across["metadata"] = sites("blocks.1.mlp.hook_in", hook_name_out="blocks.1.hook_mlp_out")
    made = {
        "standard": sl.StandardSAE(sl.StandardSAEConfig(**shape, metadata=sites())),
        "standard_plain": sl.StandardSAE(
            sl.StandardSAEConfig(**shape, apply_b_dec_to_input=False, metadata=sites("blocks.0.hook_mlp_out"))
        ),
        "topk": sl.TopKSAE(sl.TopKSAEConfig(**shape, k=K, metadata=sites())),
        "topk_rescaled": sl.TopKSAE(
            sl.TopKSAEConfig(**shape, k=K, rescale_acts_by_decoder_norm=True, metadata=sites())
        ),
        "gated": sl.GatedSAE(sl.GatedSAEConfig(**shape, metadata=sites())),
        "jumprelu": sl.JumpReLUSAE(sl.JumpReLUSAEConfig(**shape, metadata=sites("blocks.1.ln2.hook_normalized"))),
        "transcoder": sl.Transcoder(sl.TranscoderConfig(**shape, **across)),
        "jumprelu_transcoder": sl.JumpReLUTranscoder(sl.JumpReLUTranscoderConfig(**shape, **across)),
        "skip_transcoder": sl.SkipTranscoder(sl.SkipTranscoderConfig(**shape, **across)),
    }
    trained = {
        "batchtopk": sl.BatchTopKTrainingSAE(sl.BatchTopKTrainingSAEConfig(**shape, k=K, metadata=sites())),
        "matryoshka": sl.MatryoshkaBatchTopKTrainingSAE(
            sl.MatryoshkaBatchTopKTrainingSAEConfig(**shape, k=K, matryoshka_widths=[6, 12], metadata=sites())
        ),
    }
    for name, sae in made.items():
        shaken(sae).save_model(root / name)
    for name, sae in trained.items():
        shaken(sae).topk_threshold.fill_(0.5)
        sae.save_inference_model(root / name)
    for name in (*made, *trained):
        sae, x = sl.SAE.load_from_disk(root / name), 2 * random(10, D) + 1
        expect(root / name, x, sae.encode(x), sae(x))


def make_sparsify(root: Path) -> None:
    from sparsify import SparseCoder, SparseCoderConfig

    made = {
        "topk/layers.1": SparseCoderConfig(k=K, expansion_factor=N // D),
        "transcoder/layers.1.mlp": SparseCoderConfig(k=K, num_latents=N, transcode=True),
        "skip_transcoder/layers.1.mlp": SparseCoderConfig(k=K, num_latents=N, transcode=True, skip_connection=True),
    }
    for name, config in made.items():
        coder, x = shaken(SparseCoder(D, config)), 2 * random(10, D) + 1
        coder.save_to_disk(root / name)
        expect(root / name, x, *_of_sparsify(coder, x))


def _of_sparsify(coder, x):
    values, indices, _ = coder.encode(x)
    return torch.zeros(len(x), coder.num_latents).scatter(1, indices, values), coder(x).sae_out


def make_dictionary_learning(root: Path) -> None:
    from dictionary_learning import trainers
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer

    told = {"steps": 5000, "activation_dim": D, "dict_size": N, "layer": 1, "lm_name": "tiny", "device": "cpu"}
    told["submodule_name"] = "resid_post_layer_1"
    made = {
        "standard": trainers.StandardTrainer(**told),
        "gated": trainers.GatedSAETrainer(**told),
        "jumprelu": trainers.JumpReluTrainer(**told),
        "topk": trainers.TopKTrainer(**told, k=K),
        "batchtopk": trainers.BatchTopKTrainer(**told, k=K),
        "matryoshka": MatryoshkaBatchTopKTrainer(**told, k=K, group_fractions=[0.25, 0.25, 0.5]),
    }
    for name, trainer in made.items():
        (root / name).mkdir(parents=True)
        model, x = shaken(trainer.ae), 2 * random(10, D) + 1
        if "k" in model.state_dict():
            model.threshold.fill_(0.5)
        torch.save(model.state_dict(), root / name / "ae.pt")
        config = {"trainer": trainer.config, "buffer": {"d_submodule": D, "io": "out", "ctx_len": 128}}
        (root / name / "config.json").write_text(json.dumps(config, indent=4))
        expect(root / name, x, model.encode(x), model(x))


def read_saelens(directory: Path, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from sae_lens import SAE

    sae = SAE.load_from_disk(directory)
    if sae.cfg.reshape_activations == "hook_z":
        x = x.unflatten(-1, (2, -1))
    return sae.encode(x), sae(x).flatten(1)


def read_sparsify(directory: Path, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from sparsify import SparseCoder

    return _of_sparsify(SparseCoder.load_from_disk(directory), x)


def read_dictionary_learning(directory: Path, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from dictionary_learning.utils import load_dictionary

    model, _ = load_dictionary(str(directory), "cpu")
    return model.encode(x), model(x)


if __name__ == "__main__":
    verb, package, *directories = sys.argv[1:]
    act = globals()[f"{verb}_{package}"]
    for directory in map(Path, directories):
        if verb == "make":
            act(directory / package)
        else:
            expect(directory, x := load_file(directory / "x.safetensors")["x"], *act(directory, x))

"""What every test shares: one thread, and handlers that raise instead of showing their error."""

import os

os.environ["WORKBENCH_STRICT"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

torch.set_num_threads(1)

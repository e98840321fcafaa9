"""Small checkpoints in upstream formats, for tests of the readers."""

import torch
from whole_runs import GOLDEN

from checkpoints_convert import torch_reader


def small_checkpoint(**changes):
  """Returns a DCGAN's state dict as NumPy arrays, with keys replaced or (None) removed."""
  state_dict = torch_reader.read(GOLDEN / "dcgan.pth")["netG_state_dict"]
  state_dict |= changes
  return {key: array for key, array in state_dict.items() if array is not None}


def save_lightning(arrays, path, is_zip=True, **changes):
  """Saves a checkpoint as PyTorch Lightning does, with the network at its attribute `net`."""
  content = {
    "epoch": 3,
    "global_step": 100,
    "pytorch-lightning_version": "1.3.8",
    "state_dict": {f"net.{key}": torch.as_tensor(array) for key, array in arrays.items()},
    "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "monitor": "iou"}},
    "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.zeros(2)}}}],
    "lr_schedulers": [],
    "hparams_name": "kwargs",
    "hyper_parameters": {"lr": 1e-3, "betas": (0.9, 0.999)},
  }
  torch.save(content | changes, path, _use_new_zipfile_serialization=is_zip)

"""Small checkpoints, complete and truncated."""

import torch

from smmix_mm.files import write_whole


def content(done, with_optimizer=True):
    weights = dict(weight=torch.arange(600.0).reshape(20, 30), bias=torch.ones(3))
    checkpoint = dict(meta=dict(iter=done, epoch=0), state_dict=weights, message_hub=dict(runtime_info={}))
    return checkpoint | (dict(optimizer=dict(state={0: torch.ones(50)})) if with_optimizer else {})


def save(folder, name, done, with_optimizer=True):
    path = folder / name
    write_whole(path, lambda unfinished: torch.save(content(done, with_optimizer), unfinished))
    return path


def truncate(path):
    path.write_bytes(path.read_bytes()[:-300])

"""Pretraining: from a corpus to a trained encoder. `training/pretrain.py` is its command.

recipe        every value of a run, read from YAML
schedule      what changes over a run
corpus        what is learnt from; images: where the pixels lie; preparation: licences, exclusions, the held-out part
stream        the endless stream of batches
network       the model and its losses; hard_patches, contrast: the two optional ones
optimization  AdamW, and the moving average of the weights
checkpoints   written beside and renamed; sharding: those of FSDP2
evaluation    figures on held-out images; pictures: what they look like
"""

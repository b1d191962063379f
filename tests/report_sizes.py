"""Sizes of the small report generators of the tests, for `EchoCareForReportGeneration.from_preset`."""

SMALL_ENCODER = {
    "image_size": 32,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_size": 4,
    "mask_unit_size": 8,
}
SMALL_DECODER = {"decoder_n_embd": 32, "decoder_n_layer": 2, "decoder_n_head": 2}
NO_DROPOUT = {"decoder_resid_pdrop": 0.0, "decoder_embd_pdrop": 0.0, "decoder_attn_pdrop": 0.0, "drop_path_rate": 0.0}

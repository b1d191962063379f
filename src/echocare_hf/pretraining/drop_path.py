"""Drop path that depends on seed, epoch and image alone, so that one process, several, and parts of a batch compute the same."""

from torch import Tensor, nn

from echocare_hf.model.layers_echocare import EchoCareDropPath


class DropPathOfImages(EchoCareDropPath):
    """`EchoCareDropPath` whose random numbers are given, one column after another, instead of drawn for the batch at hand.

    Without numbers it draws them as `EchoCareDropPath` does.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__(drop_prob)
        self.columns: list[Tensor] = []  # each (batch,), 0 to 1

    def forward(self, hidden_states: Tensor) -> Tensor:
        if not self.columns or not self.training:
            return super().forward(hidden_states)
        keep_prob = 1 - self.drop_prob
        keep = (self.columns.pop(0) < keep_prob).to(hidden_states.dtype).view(-1, *[1] * (hidden_states.ndim - 1))
        return hidden_states * (keep / keep_prob if keep_prob > 0 else keep)


def drop_by_image(model: nn.Module) -> list[DropPathOfImages]:
    """Puts `DropPathOfImages` in the place of each drop path that ever drops, and returns them in the order in which they run."""
    found = []
    for module in model.modules():
        drop_path = getattr(module, "drop_path", None)
        if isinstance(drop_path, EchoCareDropPath) and drop_path.drop_prob:
            module.drop_path = DropPathOfImages(drop_path.drop_prob)
            found.append(module.drop_path)
    return found


BRANCHES = 2  # calls of a block's drop path: after attention and after the MLP


def give_noise(drop_paths: list[DropPathOfImages], noise: Tensor) -> None:
    """Gives each drop path its numbers for one forward pass: noise (batch, BRANCHES x drop paths), 0 to 1."""
    columns = noise.unbind(1)
    for number, drop_path in enumerate(drop_paths):
        drop_path.columns = list(columns[BRANCHES * number : BRANCHES * (number + 1)])

"""A sheet of held-out images: input, what was hidden, the reconstruction, and the anatomy path."""

from PIL import Image

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.drawing import GalleryItem, draw_gallery

from .corpus import Corpus
from .evaluation import Seen


def draw_samples(seen: list[Seen], corpus: Corpus, title: str, footer: str) -> Image.Image:
    """The images of which drawings were kept, on one sheet."""
    items = [gallery_item(entry, corpus, corpus.tree) for entry in seen if entry.drawing is not None]
    return draw_gallery(items, title=title, subtitle="held-out images, half hidden, restored", footer=footer)


def gallery_item(entry: Seen, corpus: Corpus, tree: AnatomyTree) -> GalleryItem:
    assert entry.drawing is not None
    image, mask, reconstruction = entry.drawing
    node = int(corpus.nodes[entry.row])
    height, width = corpus.images.read(entry.row).shape[:2]
    return GalleryItem(
        title=tree.names[node] if node >= 0 else "not labelled",
        image=image,
        mask=mask,
        reconstruction=reconstruction,
        path=tuple((tree.names[place], score) for place, score in tree.best_path(entry.scores, threshold=0.5)),
        aspect=width / height,
        details=str(corpus.names[entry.row]),
        numbers=f"masked error {entry.masked_error:.3f}, visible median {entry.median_error:.3f}",
    )

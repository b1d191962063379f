"""From raw files to a clean, labelled, sharded corpus (EchoCare paper, sections 4.3 and 4.4).

from echocare_hf.curation import CurateOptions, curate

result = curate(["breast_busi", "more.zip"], "corpus", CurateOptions(workers=2))
print(result.report["kept"], "of", result.report["found"])
"""

from .options import CurateOptions
from .run import CurateResult, curate

__all__ = ["CurateOptions", "CurateResult", "curate"]

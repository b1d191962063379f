"""Tokenizers for reports: one trained on the reports at hand, or an existing one made ready for the prompt."""

import copy
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AddedToken, PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, START, END = "<pad>", "<s>", "</s>"
# What stands before the conditions that a report is written under, and between these and the report.
ORGAN, INDICATION, REPORT = "<organ>", "<indication>", "<report>"

# A merged token is at most this long: five Chinese characters or one long English word. Without a limit, sentences that many reports
# share would become single tokens, because Chinese has no spaces between words.
MAX_TOKEN_BYTES = 16


def check_text(text: Any, what: str) -> str:
    """The text itself.

    Raises:
        ValueError: if it is no text, or holds half a surrogate pair, which no encoding can write.
    """
    if not isinstance(text, str):
        raise ValueError(f"{what} must be text, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds half a surrogate pair at character {error.start}: read the file as UTF-8 or UTF-16"
        ) from None
    return text


def train_report_tokenizer(texts: Iterable[str], vocab_size: int = 8192) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the reports' own language, or languages.

    Every text comes back from its tokens character by character, Chinese, English, or one that no training text holds, and also
    where it spells a special token. Digits are tokens of their own, so that measured values are written digit by digit. The tokenizer
    puts the end token after a text.

    Args:
        texts: the training reports.
        vocab_size: most tokens; a few reports give fewer. At least 262 (the bytes and the special tokens).

    Raises:
        ValueError: without a text that holds a character, for a text that is no text, or for too few tokens.
    """
    if isinstance(texts, str):
        raise ValueError("`texts` must be a list of reports, got one text")
    checked = [check_text(text, f"report {index} of `texts`") for index, text in enumerate(texts)]
    if not any(text.strip() for text in checked):
        raise ValueError("`texts` must hold at least one report that is not empty, to train the tokenizer on")
    special = [PAD, START, END, ORGAN, INDICATION, REPORT]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet) + len(special):
        raise ValueError(f"`vocab_size` must be at least {len(alphabet) + len(special)}, got {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=sorted(alphabet),
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=False,
    )
    tokenizer.train_from_iterator(checked, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        extra_special_tokens=[ORGAN, INDICATION, REPORT],
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def prepare_report_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy of an existing tokenizer that has every token a prompt needs; what it lacks is added at its end.

    The start token is its own, or its class token (as in BERT); the end token likewise its own or the separator. The end token also
    pads where it has no token for that.
    """
    tokenizer = copy.deepcopy(tokenizer)
    known = set(tokenizer.get_vocab())
    end = tokenizer.eos_token or tokenizer.sep_token or END
    start = tokenizer.bos_token or tokenizer.cls_token or end
    wanted = [start, end, ORGAN, INDICATION, REPORT]
    missing = [token for token in dict.fromkeys(wanted) if token not in known]
    if missing:
        tokenizer.add_tokens(
            [AddedToken(token, special=True, normalized=False) for token in missing], special_tokens=True
        )
    tokenizer.bos_token, tokenizer.eos_token = start, end
    if tokenizer.pad_token is None:
        tokenizer.pad_token = end
    tokenizer.padding_side = "left"
    return tokenizer


__all__ = [
    "END",
    "INDICATION",
    "ORGAN",
    "PAD",
    "REPORT",
    "START",
    "prepare_report_tokenizer",
    "train_report_tokenizer",
]

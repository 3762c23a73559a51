"""The language's tokenizer: an ordinary Hugging Face fast tokenizer, one token per word."""

from typing import TYPE_CHECKING

from workbench.language.vocabulary import MARKS, SPECIAL, VOCABULARY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """Return the tokenizer; ``encode`` puts BOS first, and a word it does not know raises."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    pad, bos, eos = SPECIAL
    # Without an unknown token the model refuses a word that is not in the vocabulary, which is what we want.
    tokenizer = Tokenizer(WordLevel(vocab=dict(VOCABULARY)))
    marks = "".join(MARKS)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(f"[{marks}]"), "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=None, special_tokens=[(bos, VOCABULARY[bos])]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(f"^(?=[^{marks}])"), " "),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )

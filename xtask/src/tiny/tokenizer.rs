//! A tokenizer that takes any text: one token for each byte, and three special ones.

use serde_json::{Map, Value, json};

/// Bytes, then the special tokens. A byte's token has the byte's own number.
pub(super) const VOCABULARY: usize = 256 + SPECIAL.len();
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const END_OF_TEXT: usize = 256;
/// The number of `<|im_end|>`.
pub(super) const END_OF_TURN: usize = 258;

/// ChatML: every message between its two tokens, with the name of who speaks.
const CHAT_TEMPLATE: &str = "{%- for message in messages -%}\
    {{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\
    {%- endfor -%}\
    {%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

/// Whether a token is a printable ASCII character or a line break.
pub(super) fn is_text(token: usize) -> bool {
    matches!(token, 0x0a | 0x20..=0x7e)
}

/// `tokenizer.json`.
pub(super) fn tokenizer() -> Value {
    let vocabulary: Map<String, Value> = characters()
        .enumerate()
        .map(|(byte, character)| (character.to_string(), json!(byte)))
        .collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(index, content)| {
            let mut token = special(content);
            token["id"] = json!(END_OF_TEXT + index);
            token
        })
        .collect();
    let bytes = json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": true,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocabulary,
            "merges": [],
        },
    })
}

/// `tokenizer_config.json`.
pub(super) fn config(context: usize) -> Value {
    let added: Map<String, Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(index, content)| ((END_OF_TEXT + index).to_string(), special(content)))
        .collect();
    json!({
        "add_bos_token": false,
        "added_tokens_decoder": added,
        "additional_special_tokens": SPECIAL[1..],
        "bos_token": null,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": SPECIAL[2],
        "model_max_length": context,
        "pad_token": SPECIAL[0],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": null,
    })
}

/// `generation_config.json`.
pub(super) fn generation_config() -> Value {
    json!({
        "eos_token_id": [END_OF_TURN, END_OF_TEXT],
        "pad_token_id": END_OF_TEXT,
    })
}

fn special(content: &str) -> Value {
    json!({
        "content": content,
        "lstrip": false,
        "normalized": false,
        "rstrip": false,
        "single_word": false,
        "special": true,
    })
}

/// The character that stands for each byte, in the order of bytes.
///
/// GPT-2's map: a byte that Latin-1 prints is itself; those that it does not print follow one another from U+0100 on.
fn characters() -> impl Iterator<Item = char> {
    let mut others = '\u{100}'..;
    (0..=u8::MAX).filter_map(move |byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => Some(char::from(byte)),
        _ => others.next(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_byte_has_one_token_with_its_number() {
        let tokenizer = tokenizer();
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
        let ids: BTreeSet<u64> = vocabulary.values().filter_map(Value::as_u64).collect();
        assert_eq!((vocabulary.len(), ids), (256, (0..256).collect()));
        // Places that everybody who reads GPT-2's files knows.
        for (character, byte) in [
            ("A", 65),
            ("Ġ", 32),
            ("Ċ", 10),
            ("Ā", 0),
            ("Ã", 0xc3),
            ("©", 0xa9),
            ("Ń", 0xad),
        ] {
            assert_eq!(vocabulary[character], byte, "{character}");
        }
    }

    #[test]
    fn special_tokens_follow_the_bytes() {
        let tokenizer = tokenizer();
        let added = tokenizer["added_tokens"].as_array().unwrap();
        for (index, token) in added.iter().enumerate() {
            assert_eq!(token["id"], 256 + index);
            assert_eq!(token["special"], true);
        }
        assert_eq!(256 + added.len(), VOCABULARY);
        assert_eq!(added[END_OF_TURN - 256]["content"], config(9)["eos_token"]);
        assert_eq!(added[END_OF_TEXT - 256]["content"], "<|endoftext|>");
    }
}

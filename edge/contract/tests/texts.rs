//! Text means the same in one piece and in chunks.

use weir_contract::Text;
use weir_contract::command::Command;

use crate::support::corpus::hex;

/// Reads `text`, an encoded text, where a message has one.
fn read(text: &str, check: impl FnOnce(Text<'_>)) {
    let bytes = hex(&format!("84{text}600080"));
    check(Command::read(&bytes).expect("a command").id);
}

#[test]
fn chunks_make_a_whole() {
    for (encoded, parts) in [
        ("60", vec![""]),
        ("63616263", vec!["abc"]),
        ("7fff", vec![]),
        ("7f60ff", vec![""]),
        ("7f63616263ff", vec!["abc"]),
        ("7f6161606162781063636363636363636363636363636363ff", vec!["a", "", "b", &"c".repeat(16)]),
        ("7f62c3a964f09f8ca1ff", vec!["é", "🌡"]),
    ] {
        read(encoded, |text| {
            let whole = parts.concat();
            assert_eq!(text.chunks().collect::<Vec<_>>(), parts);
            assert_eq!(text, *whole);
            assert_eq!(text, Text::from(&*whole));
            assert_ne!(text, *format!("{whole}."));
            assert_eq!((text.len(), text.is_empty()), (whole.len(), whole.is_empty()));
            assert_eq!(text.to_cow(), whole);
            assert_eq!(text.to_string(), whole);
            assert_eq!(text.as_str(), (!encoded.starts_with("7f")).then_some(&*whole));
        });
    }
}

#[test]
fn a_character_cut_by_a_chunk_is_no_text() {
    for text in ["7f61c361a9ff", "7f7f6161ffff", "7f4161ff", "7f00ff"] {
        let bytes = hex(&format!("84{text}600080"));
        let refusal = Command::read(&bytes).expect_err("not well-formed");
        assert_eq!(refusal.to_string(), "not well-formed CBOR, at byte 1", "{text}");
    }
}

#[test]
fn what_is_shown_is_quoted_safely() {
    read("641b5b3141", |text| assert_eq!(format!("{text:?}"), r#""\u{1b}[1A""#));
}

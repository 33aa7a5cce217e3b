//! Letters that stand in a text as JSON writes them, wherever it has JSON in it.

/// The text with JSON's escapes as what they mean, if it has any.
pub fn without_escapes(text: &str) -> Option<String> {
    let mut found = false;
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match escape(rest) {
            Some((letter, bytes)) => {
                found = true;
                plain.push(letter);
                rest = &rest[bytes..];
            }
            None => plain.push('\\'),
        }
    }
    plain.push_str(rest);
    found.then_some(plain)
}

/// What stands behind a backslash, and in how many bytes.
fn escape(text: &str) -> Option<(char, usize)> {
    match *text.as_bytes().first()? {
        byte @ (b'"' | b'\\' | b'/') => Some((byte.into(), 1)),
        b'n' | b'r' | b't' | b'b' | b'f' => Some(('\n', 1)),
        b'u' => {
            let high = unit(&text[1..])?;
            // A letter beyond the first plane is two.
            let low = || text[5..].strip_prefix("\\u").and_then(unit);
            let two = |low| char::decode_utf16([high, low]).next()?.ok();
            match char::from_u32(high.into()) {
                Some(letter) => Some((letter, 5)),
                None => Some((low().and_then(two)?, 11)),
            }
        }
        _ => None,
    }
}

fn unit(text: &str) -> Option<u16> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::without_escapes;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_what_they_mean_wherever_they_stand() {
        for (text, plain) in [
            (r#"Tool said: {"name": "M\u00fcller"}"#, Some(r#"Tool said: {"name": "Müller"}"#)),
            (r"project\nalpha", Some("project\nalpha")),
            (r"\ud83d\ude00\u0070", Some("😀p")),
            (r#"\"a\/\\"#, Some("\"a/\\")),
            (r"\ud83d \u12 \x \", None),
            ("no backslash", None),
        ] {
            assert_eq!(without_escapes(text).as_deref(), plain, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_json_writes_is_read_again(text in any::<String>()) {
            let written = serde_json::to_string(&text).unwrap();
            let ascii: String = written.encode_utf16().map(|unit| match unit {
                0x20..0x7f => char::from(unit as u8).to_string(),
                unit => format!("\\u{unit:04x}"),
            }).collect();
            // All that is white space is alike.
            let alike = |text: &str| text.replace(['\r', '\t', '\u{8}', '\u{c}'], "\n");
            for written in [written, ascii] {
                let inner = &written[1..written.len() - 1];
                prop_assert_eq!(alike(&without_escapes(inner).unwrap_or_else(|| inner.to_owned())), alike(&text));
            }
        }
    }
}

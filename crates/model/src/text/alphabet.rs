//! The alphabet of byte-level BPE: one printable character per byte, so that a vocabulary is text.
//!
//! Bytes that print in Latin-1 stand for themselves; the other 68 take the characters from U+0100 on, in order. A space
//! is `Ġ`, a line feed `Ċ`. From GPT-2's `bytes_to_unicode`.

/// Whether the byte prints in Latin-1.
const fn prints(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

const LETTERS: [char; 256] = {
    let mut letters = ['\0'; 256];
    let (mut byte, mut other) = (0, 0x100);
    while byte < 256 {
        letters[byte] = if prints(byte as u8) {
            byte as u8 as char
        } else {
            other += 1;
            match char::from_u32(other - 1) {
                Some(letter) => letter,
                None => '\0',
            }
        };
        byte += 1;
    }
    letters
};

/// The characters of bytes that do not print, U+0100 to U+0143, back to them.
const OTHERS: [u8; 68] = {
    let mut others = [0; 68];
    let mut byte = 0;
    while byte < 256 {
        let letter = LETTERS[byte] as usize;
        if letter >= 0x100 {
            others[letter - 0x100] = byte as u8;
        }
        byte += 1;
    }
    others
};

pub(super) fn letter(byte: u8) -> char {
    LETTERS[usize::from(byte)]
}

/// None for a character that is not in the alphabet.
pub(super) fn byte(letter: char) -> Option<u8> {
    match u32::from(letter) {
        code @ 0..=0xFF => Some(code as u8).filter(|&byte| prints(byte)),
        code => OTHERS.get(code as usize - 0x100).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_letter_of_its_own() {
        for b in 0..=u8::MAX {
            assert_eq!(byte(letter(b)), Some(b));
        }
        assert_eq!((letter(b' '), letter(b'\n'), letter(0xAD)), ('Ġ', 'Ċ', 'Ń'));
        assert_eq!((byte(' '), byte('\u{AD}'), byte('\u{144}'), byte('€')), (None, None, None, None));
    }
}

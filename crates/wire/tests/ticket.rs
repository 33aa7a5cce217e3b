//! A ticket is copied by people, through terminals, mails and paper.

use littoral_wire::bounded::{List, Text};
use littoral_wire::message::Role;
use littoral_wire::ticket::{Ticket, TicketError};
use littoral_wire::{DecodeError, SecretKey, Wire};

const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz234567";

fn ticket(addresses: usize) -> Ticket {
    Ticket {
        cloud: SecretKey::from_bytes([5; 32]).id(),
        secret: [6; 16],
        role: Role::Device,
        addresses: List::new(vec!["cloud.example.org:7447".into(); addresses]).unwrap(),
        roster: (addresses % 2 == 1).then(|| SecretKey::from_bytes([7; 32]).id()),
    }
}

/// The same encoding, written down another way: as a string of bits.
fn text_of(body: &[u8]) -> String {
    let check = *blake3::hash(body).as_bytes();
    let bits: String = body.iter().chain(&check[..4]).map(|byte| format!("{byte:08b}")).collect();
    let digit = |five: &[u8]| {
        let five = format!("{:0<5}", str::from_utf8(five).unwrap());
        ALPHABET.as_bytes()[usize::from_str_radix(&five, 2).unwrap()] as char
    };
    format!("littoral1-{}", bits.as_bytes().chunks(5).map(digit).collect::<String>())
}

#[test]
fn there_and_back() {
    // Eight lengths in a row meet every length of padding.
    for addresses in 0..=8 {
        let ticket = ticket(addresses);
        let text = ticket.to_string();
        assert_eq!(text, text_of(&ticket.to_bytes()));
        assert_eq!(text.parse(), Ok(ticket.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(ticket.clone()), "white space around it");
        assert_eq!(text.to_uppercase().replace("LITTORAL1-", "littoral1-").parse(), Ok(ticket));
    }
}

#[test]
fn mistyped_at_every_place() {
    let text = ticket(1).to_string();
    for at in "littoral1-".len()..text.len() {
        for digit in ALPHABET.chars().filter(|d| !text[at..].starts_with(*d)) {
            let mistyped = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
            assert!(mistyped.parse::<Ticket>().is_err(), "{mistyped}");
        }
    }
}

#[test]
fn cut_at_every_place() {
    let text = ticket(1).to_string();
    for len in 0..text.len() {
        assert!(text[..len].parse::<Ticket>().is_err(), "{len}");
    }
}

/// Bits at the end that belong to no byte are zero, and there is no character too many: a ticket has one text.
#[test]
fn another_text_for_the_same_ticket() {
    for addresses in 0..=8 {
        let text = ticket(addresses).to_string();
        let bytes = ticket(addresses).to_bytes().len() + 4;
        assert!(format!("{text}a").parse::<Ticket>().is_err());
        let loose = (5 - bytes * 8 % 5) % 5;
        let last = ALPHABET.find(&text[text.len() - 1..]).unwrap();
        for bits in 1..1 << loose {
            let other = format!("{}{}", &text[..text.len() - 1], &ALPHABET[last + bits..last + bits + 1]);
            assert_eq!(other.parse::<Ticket>(), Err(TicketError::LooseEnd));
        }
    }
}

#[test]
fn check_sum_right_and_content_wrong() {
    let body = ticket(1).to_bytes();
    let left_over = Err(TicketError::Malformed(DecodeError::LeftOver { offset: body.len(), got: 1 }));
    assert_eq!(text_of(&[&body[..], &[0]].concat()).parse::<Ticket>(), left_over);
    let mut role = body.clone();
    role[48] = 9;
    let unknown = Err(TicketError::Malformed(DecodeError::UnknownTag { what: "Role", offset: 48, got: 9 }));
    assert_eq!(text_of(&role).parse::<Ticket>(), unknown);
    assert!(text_of(b"").parse::<Ticket>().is_err());
}

#[test]
fn not_a_ticket() {
    let error = |text: &str| text.parse::<Ticket>().unwrap_err();
    assert_eq!(error("https://example.org"), TicketError::NoPrefix { got: "https://ex".into() });
    assert_eq!(error("littoral1-abc!"), TicketError::BadCharacter('!'));
    assert_eq!(error("littoral1-abé"), TicketError::BadCharacter('é'));
    assert_eq!(error("littoral1-"), TicketError::BadChecksum);
    assert_eq!(error(&format!("littoral1-{}", "a".repeat(1 << 20))), TicketError::TooLong { got: 1 << 20 });
}

#[test]
fn the_longest_ticket_is_not_too_long() {
    let ticket = Ticket { addresses: List::new(vec![Text::new("x".repeat(264)); 8]).unwrap(), ..ticket(0) };
    assert_eq!(ticket.to_string().parse(), Ok(ticket));
}

//! What a person pastes. The check sum keeps a fuzzer out, so the same bytes are also taken as a ticket's content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::canonical;
use littoral_wire::ticket::Ticket;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        match text.parse::<Ticket>() {
            Ok(ticket) => assert_eq!(ticket.to_string(), text.trim().to_ascii_lowercase()),
            Err(error) => drop(error.to_string()),
        }
        // Past the prefix, where the digits are.
        let _ = format!("littoral1-{text}").parse::<Ticket>().map_err(|error| error.to_string());
    }
    if let Some(ticket) = canonical::<Ticket>(bytes) {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
});
